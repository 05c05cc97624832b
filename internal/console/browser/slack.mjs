// Slack is down: the record is ahead of it, and Slack is correct again after it is
// back.
import {api, assert, is, row, shot, until, walk} from "./harness.mjs";

await walk(async (page) => {
	await page.locator("#stage-slack-open").click();
	const dialog = page.getByRole("dialog", {name: "Break things"});
	await dialog.getByRole("button", {name: "Break Slack: away"}).click();
	await page.keyboard.press("Escape");
	await page.locator("#stage-slack.is-broken").waitFor();

	await api("POST", "/api/push", {image: "acme/api:1.5.0"});
	await is(page, "acme/api:1.5.0", "promoted");
	await row(page, "acme/api:1.5.0").getByText("behind").waitFor();
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	await page.locator("#story-head", {hasText: "behind the record"}).waitFor();
	assert.equal(await page.locator(".slack").count(), 0);
	await shot(page, "behind");

	// After Slack is back, the clock shows it.
	await page.locator(".faults-now").getByRole("button", {name: "Fix Slack: away"}).click();
	await until("Slack shows it", async () => {
		await api("POST", "/api/clock", {forward: "10m"});
		return await page.locator("#story-slack .slack", {hasText: "✅"}).count() > 0;
	});
	await page.locator("#story-head", {hasText: "shows it"}).waitFor();
	await page.keyboard.press("Escape");
	await row(page, "acme/api:1.5.0").getByText("shown").waitFor();
	assert.equal(await page.locator(".tag.wait", {hasText: "behind"}).count(), 0);
});

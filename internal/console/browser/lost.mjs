// Docker Hub loses a webhook: nothing happens, until reconcile finds the push.
import {api, assert, is, row, shot, until, walk} from "./harness.mjs";

await walk(async (page) => {
	await page.locator("#stage-hub-open").click();
	await page.getByRole("dialog", {name: "Break things"}).getByRole("button", {name: "Break Docker Hub: lost"}).click();
	await page.keyboard.press("Escape");
	await api("POST", "/api/push", {image: "acme/api:1.5.0"});
	await page.locator("#feed", {hasText: /webhooks? .*lost|lost/}).waitFor();
	await page.locator(".faults-now").getByRole("button", {name: "All well again"}).click();
	await until("found", async () => {
		await api("POST", "/api/clock", {forward: "11m"});
		await page.getByRole("button", {name: /^Reconcile now/}).click();
		return await row(page, "acme/api:1.5.0").count() > 0;
	});
	await is(page, "acme/api:1.5.0", "promoted");
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).first().click();
	await page.locator(".hints", {hasText: "reconcile"}).waitFor();
	assert.match(await page.locator(".hints tbody tr").first().innerText(), /reconcile/, "a webhook was first");
	await shot(page, "found");
});

// A pipeline fails: Slack asks people to look, and a retry of the job fixes it.
import {api, assert, is, row, walk} from "./harness.mjs";

await walk(async (page) => {
	await api("POST", "/api/faults", {stage: "pipeline", answer: "fails", times: 1});
	await page.locator(".faults-now", {hasText: "Pipeline: fails"}).waitFor();
	await page.locator("#push-image").fill("acme/api:1.5.0");
	await page.locator("#push-kind").selectOption("single");
	await page.locator("#push-image").press("Enter");
	await is(page, "acme/api:1.5.0", "failed");
	await page.locator(".faults-now").waitFor({state: "detached"});
	await page.locator("#stage-pipeline .bad", {hasText: "1 bad"}).waitFor();
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	const story = page.getByRole("article", {name: "acme/api:1.5.0"});
	await story.locator(".slack .body.bad", {hasText: "❌"}).first().waitFor();
	await story.getByRole("group", {name: "Thread"}).waitFor();
	await story.locator(".waterfall tr", {hasText: "Pipeline"}).locator(".tag.bad").waitFor();

	await story.getByRole("button", {name: /^Retry the job/}).click();
	await is(page, "acme/api:1.5.0", "promoted");
	await story.locator("#story-head .badge", {hasText: "promoted"}).waitFor();
	await story.locator(".slack", {hasText: "✅"}).getByText("(edited)").first().waitFor();
	assert.equal(await row(page, "acme/api:1.5.0").count(), 1);
	assert.equal(await story.locator("#retry-this").count(), 0);
});

// GitLab is down: the push waits with its reason, is given up in the end, and is
// promoted after a replay.
import {accessible, is, row, shot, walk} from "./harness.mjs";

await walk(async (page) => {
	await page.getByRole("button", {name: /^Break things/}).click();
	const dialog = page.getByRole("dialog", {name: "Break things"});
	await dialog.locator("summary", {hasText: "GitLab"}).click();
	await accessible(page, "faults");
	await shot(page, "faults");
	await dialog.getByRole("button", {name: "Break GitLab: away"}).click();
	await page.locator("#news", {hasText: "Set:"}).waitFor();
	await page.keyboard.press("Escape");
	await page.locator("#stage-gitlab.is-broken").waitFor();
	await page.locator(".faults-now", {hasText: "GitLab: away"}).waitFor();

	await page.locator("#push-image").fill("acme/api:1.5.0");
	await page.getByRole("button", {name: "Push", exact: false}).first().click();
	await is(page, "acme/api:1.5.0", "waiting");
	await row(page, "acme/api:1.5.0").getByText("gitlab_unavailable").waitFor();
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	await page.locator("#story-head", {hasText: "gitlab_unavailable"}).waitFor();
	await page.locator(".waterfall .bar.wait").first().waitFor({state: "attached"});
	await shot(page, "waiting");

	// Time passes, until Pub/Sub gives up: after fifty attempts, two seconds apart
	// where a busy machine lets time pass no faster.
	await page.getByRole("button", {name: /^Time/}).click();
	await page.getByRole("button", {name: "+1 h", exact: true}).click();
	await page.locator("#story-head .badge", {hasText: "dead"}).waitFor({timeout: 300_000});
	await page.locator("#ahead", {hasText: /^\s*Clock (59|60) min \d\d s ahead$/}).waitFor();
	await page.keyboard.press("Escape");
	await page.locator("#stage-dead-letters", {hasText: /[1-9]\d* waiting/}).waitFor();
	await page.locator(".slack", {hasText: "🚨"}).waitFor();
	await accessible(page, "dead");
	await shot(page, "dead");

	// Fixed and replayed.
	await page.locator(".faults-now").getByRole("button", {name: "All well again"}).click();
	await page.locator(".faults-now").waitFor({state: "detached"});
	await page.getByRole("button", {name: "Replay acme/api:1.5.0"}).click();
	await page.locator("#news", {hasText: "queued again"}).waitFor();
	await is(page, "acme/api:1.5.0", "promoted");
});

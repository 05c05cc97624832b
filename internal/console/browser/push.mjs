// The first minute: an empty page, one push, and its story up to Slack.
import {accessible, api, assert, is, live, row, shot, until, url, walk} from "./harness.mjs";

await walk(async (page) => {
	await page.getByText("Nothing was pushed yet").waitFor();
	await accessible(page, "empty");
	await shot(page, "empty");
	await page.getByRole("button", {name: "Push acme/api:1.5.0"}).click();
	await page.locator("#news", {hasText: "Pushed acme/api:1.5.0"}).waitFor();
	await is(page, "acme/api:1.5.0", "promoted");
	assert.equal(await row(page, "acme/api:1.5.0").count(), 1, "one promotion, however many webhooks there were");
	await row(page, "acme/api:1.5.0").getByText("shown").waitFor();
	await page.locator("#stage-slack", {hasNotText: /^\s*Slack\s+0 done/}).waitFor();

	// Its story.
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	const story = page.getByRole("article", {name: "acme/api:1.5.0"});
	await story.waitFor();
	assert.match(page.url(), /\/promotions\/[0-9a-f]{32}$/);
	assert.equal(await page.evaluate(() => document.activeElement.id), "story", "the story has the focus");
	assert.equal(await row(page, "acme/api:1.5.0").getAttribute("aria-current"), "true");
	assert.match(await page.title(), /^acme\/api:1\.5\.0/);
	const bars = story.locator(".waterfall tbody tr:not(.is-aside)");
	assert.ok(await bars.count() >= 3, "the waterfall has bars");
	for (const stage of ["Trigger", "GitLab", "Pipeline", "Notify"]) await bars.filter({hasText: stage}).first().waitFor();
	const slack = story.locator(".slack").first();
	await slack.getByText("✅").waitFor();
	await slack.getByRole("link", {name: "pipeline"}).waitFor();
	assert.doesNotMatch(await slack.innerText(), /:white_check_mark:|&amp;/);
	await story.locator(".facts", {hasText: "image_digest"}).waitFor();
	const hints = story.locator(".hints tbody tr");
	assert.ok(await hints.count() >= 1);

	// Payload and answer side by side, and log lines of all three functions.
	const call = story.locator("#story-log details", {has: page.locator("summary .time", {hasText: /^201/})}).first();
	await call.locator("summary").click();
	await call.getByText("Request", {exact: true}).waitFor();
	assert.match(await call.locator("pre").first().innerText(), /image_tag/);
	for (const who of ["webhook", "trigger", "notify"]) {
		const line = story.locator("#story-log > li:not(.is-aside) details", {has: page.locator(".who", {hasText: new RegExp(`^${who}$`, "i")})}).filter({has: page.getByText("Log line")}).first();
		await line.locator("summary").click();
		assert.match(await line.locator("pre").last().innerText(), /"message"/);
	}

	// As curl.
	await story.getByRole("button", {name: "Copy as curl"}).nth(1).click();
	const copied = await page.evaluate(() => navigator.clipboard.readText());
	assert.match(copied, /^curl .*acme\/api:1\.5\.0/);

	await page.evaluate(() => { navigator.clipboard.writeText = () => Promise.reject(new DOMException("no", "NotAllowedError")); });
	await story.getByRole("button", {name: "Copy as curl"}).nth(1).click();
	await page.locator("#news[data-bad=true]", {hasText: "copy it by hand"}).waitFor();
	assert.equal(await page.evaluate(() => String(getSelection())), copied);

	// After it is closed, the focus is back where it was.
	await page.keyboard.press("Escape");
	await story.waitFor({state: "detached"});
	assert.match(await page.evaluate(() => document.activeElement.id), /^open-/);
	assert.equal(page.url(), url + "/");

	// Opened once more, the browser's way back leads to the list, too.
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	await story.waitFor();
	await page.goBack();
	await story.waitFor({state: "detached"});
	await live(page);
	await page.goForward();
	await story.waitFor();

	// The address of a story is a page.
	const [{id}] = (await api("GET", "/api/promotions")).rows;
	await page.goto(`${url}/promotions/${id}`);
	await live(page);
	await story.waitFor();
	await page.goBack();
	await page.getByRole("heading", {name: "Promotions"}).waitFor();
	await live(page);
	assert.equal(await page.locator("#story").count(), 0);

	// A filter keeps the story, and the address contains both.
	await page.goto(`${url}/promotions/${id}`);
	await live(page);
	await page.locator("#q").fill("1.5");
	await page.waitForURL(/\/promotions\/[0-9a-f]{32}\?q=1\.5$/);
	await story.waitFor();
	await live(page);
	await page.locator("#close").click();
	await page.waitForURL(url + "/?q=1.5");
	await page.goto(url);
	await live(page);

	// An open story is kept up to date.
	await page.locator("#push-image").fill("acme/web:2.0.0");
	await api("POST", "/api/faults", {stage: "gitlab", answer: "away"});
	await page.locator("#push-image").press("Enter");
	await is(page, "acme/web:2.0.0", "waiting");
	await page.getByRole("link", {name: "acme/web:2.0.0", exact: true}).click();
	const second = page.getByRole("article", {name: "acme/web:2.0.0"});
	await second.locator("#story-head .badge", {hasText: "waiting"}).waitFor();
	await second.locator("#story-log details").first().locator("summary").click();
	await page.locator(".faults-now").getByRole("button", {name: "All well again"}).click();
	await second.locator("#story-head .badge", {hasText: "promoted"}).waitFor();
	await second.locator(".slack", {hasText: "✅"}).waitFor();
	assert.equal(await second.locator("#story-log details[open]").count(), 1, "what was opened stays open");
	const {id: told} = (await api("GET", "/api/promotions?text=acme/web:2.0.0")).rows[0];
	await until("the story has each entry once, in their order", async () => {
		const shown = await second.locator("#story-log > li").evaluateAll((list) => list.map((e) => e.id));
		const all = (await api("GET", `/api/promotions/${told}`)).events.map((e) => `event-${e.id}`);
		return shown.join() === all.join();
	});
});

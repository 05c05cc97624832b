// Everything that is sent is shown as text, and never runs: the walk fails at any
// dialog, error or breach of the policy.
import {api, assert, shot, url, until, walk} from "./harness.mjs";

const script = `<script>alert(1)</script>`;
const image = `"><img src=x onerror=alert(1)>`;

await walk(async (page) => {
	// Into every field of a webhook.
	for (const body of [
		{push_data: {tag: script, pusher: script, pushed_at: 1}, repository: {repo_name: "acme/api"}},
		{push_data: {tag: "1.5.0", pusher: image, pushed_at: 1417566161, media_type: script}, repository: {repo_name: "acme/api"}},
		{push_data: {tag: "1.5.0", pusher: image + script}, repository: {repo_name: script}},
		{push_data: {tag: "9.9.9", pusher: script, pushed_at: 1417566161}, repository: {repo_name: "acme/api", description: script}, callback_url: image},
		{[script]: image},
	]) await api("POST", "/api/webhook", body);
	// By the page's own form.
	await page.getByRole("button", {name: /^Send JSON/}).click();
	await page.locator("#send-body").fill(JSON.stringify({push_data: {tag: image}, repository: {repo_name: "acme/api"}}));
	await page.getByRole("button", {name: "Send", exact: true}).click();
	await page.locator("#news", {hasText: "400"}).waitFor();
	assert.equal(await page.locator("#news img, #news script").count(), 0);
	await page.keyboard.press("Escape");
	// Text that is not JSON, through the filter and the address.
	await page.locator("#push-image").fill(`acme/api:${script.replaceAll(" ", "")}`);
	await page.locator("#push-image").press("Enter");
	await page.locator("#news[data-bad=true]").waitFor();
	await page.locator("#q").fill(image);
	await page.getByText("Nothing matches").waitFor();
	assert.equal(await page.locator("#q").inputValue(), image);
	await page.goto(`${url}/promotions/${encodeURIComponent(script)}`);
	await page.getByText("not known").waitFor();
	await page.goto(`${url}/?q=${encodeURIComponent(script)}&state=${encodeURIComponent(image)}&page=-1`);

	// A pipeline's words reach the record, Slack and the log lines.
	await page.goto(url);
	const [, token] = /\/webhook\/(\S+)/.exec(await page.locator("#send-url").textContent());
	assert.ok(token);
	await until("the tag is looked at", async () => (await api("GET", "/api/promotions")).rows.length > 0);
	for (const {id} of (await api("GET", "/api/promotions")).rows) {
		await page.goto(`${url}/promotions/${id}`);
		await page.locator("#story").waitFor();
		for (const summary of await page.locator("#story-log summary").all()) await summary.click();
	}
	await shot(page, "hostile");
	assert.equal(await page.locator("main script, main img, main iframe, main object, main embed").count(), 0);
	assert.ok((await page.locator("main").innerText()).includes("alert(1)"), "the text is there, as text");
}, {expected: [/400/, /404/]});

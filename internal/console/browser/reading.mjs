// Updates of a story do not disturb its reader: what is open stays open, and what
// has the focus keeps it.
import {api, assert, is, until, walk} from "./harness.mjs";

const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute("aria-label") || document.activeElement.tagName);

await walk(async (page) => {
	await api("POST", "/api/faults", {stage: "gitlab", answer: "away"});
	await api("POST", "/api/push", {image: "acme/api:1.5.0"});
	await is(page, "acme/api:1.5.0", "waiting");
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	const attempts = async () => Number(await page.locator("#story-hints tbody tr").first().locator("td.num").textContent());
	const more = async () => {
		const before = await attempts();
		await until("another attempt is shown", async () => await attempts() > before);
	};

	// The payload of a message.
	const hint = page.locator("#story-hints details").first();
	await hint.locator("summary").click();
	await hint.locator("summary").focus();
	const before = await focused(page);
	await more();
	assert.ok(await hint.evaluate((e) => e.open), "the payload closes with the next attempt");
	assert.equal(await focused(page), before);
	assert.equal(await page.locator("#story-hints details").count(), await page.locator("#story-hints tbody tr").count());

	// Parts without a name: those of Slack's message, and the payload itself.
	for (const place of ["#story-slack a, #story-slack pre", "#story-hints details[open] pre", "#hints-scroll"]) {
		const what = page.locator(place).first();
		if (await what.count() === 0) continue;
		await what.focus();
		await more();
		assert.ok(await page.evaluate(() => document.activeElement !== document.body), `${place} loses the focus`);
	}
	await api("POST", "/api/well");
	await is(page, "acme/api:1.5.0", "promoted");
	assert.ok(await hint.evaluate((e) => e.open), "the payload closes at the end");
}, {expected: [/ERR_/]});

// A record, a story and a stream whose every text is hostile: all of it is text.
import {assert, shot, tell, walk} from "./harness.mjs";

const harmless = async (page) => {
	assert.equal(await page.locator("body :is(img, iframe, object, embed, base, form[action^=http])").count(), 0);
	assert.equal(await page.locator("body script").count(), 0);
	const links = await page.locator("a").evaluateAll((list) => list.map((a) => a.protocol));
	assert.ok(links.every((p) => p === "http:" || p === "https:"), links.join(" "));
	const handlers = await page.evaluate(() => [...document.querySelectorAll("*")].filter((e) => [...e.attributes].some((a) => a.name.startsWith("on"))).length);
	assert.equal(handlers, 0);
};

await walk(async (page) => {
	assert.ok(await page.locator("#rows > tr").count() >= 5);
	await harmless(page);
	await tell("hostile");
	await page.locator("#feed", {hasText: "a second time"}).waitFor();
	await harmless(page);
	for (const link of await page.locator("#rows a.open").all()) {
		await link.click({position: {x: 5, y: 5}});
		await page.locator(`#story[data-id="${(await link.getAttribute("id")).slice("open-".length)}"]`).waitFor();
		for (const summary of await page.locator("#story-log summary").all()) await summary.click();
		await harmless(page);
	}
	assert.ok((await page.locator("#story-slack").innerText()).includes("alert(1)"));
	assert.ok((await page.locator("#story-log").innerText()).includes("alert(1)"));
	await shot(page, "record", {fullPage: true});
});

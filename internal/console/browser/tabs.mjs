// Many tabs of one browser: hidden tabs close their connections, and a tab that
// becomes visible again shows what happened in the meantime.
import {api, assert, is, live, row, until, url, walk} from "./harness.mjs";

// see sets whether a page is visible: in a browser without a screen all of them
// are.
const see = (page, seen) => page.evaluate((seen) => {
	Object.defineProperty(document, "hidden", {configurable: true, get: () => !seen});
	document.dispatchEvent(new Event("visibilitychange"));
}, seen);

await walk(async (page) => {
	await api("POST", "/api/push", {image: "acme/api:1.5.0"});
	await is(page, "acme/api:1.5.0", "promoted");
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	await page.getByRole("article", {name: "acme/api:1.5.0"}).waitFor();
	await see(page, false);
	let last;
	for (let n = 0; n < 8; n++) {
		last = await page.context().newPage();
		await last.goto(url);
		await live(last);
		if (n < 7) await see(last, false);
	}
	await api("POST", "/api/push", {image: "acme/api:1.6.0"});
	await is(last, "acme/api:1.6.0", "promoted");
	assert.equal(await row(page, "acme/api:1.6.0").count(), 0);

	await see(page, true);
	await see(page, false);
	await see(page, true);
	await is(page, "acme/api:1.6.0", "promoted");
	await page.getByRole("article", {name: "acme/api:1.5.0"}).waitFor();
	await api("POST", "/api/push", {image: "acme/api:1.7.0"});
	await is(page, "acme/api:1.7.0", "promoted");
	// Changes of the open story come by the new stream.
	const entries = await page.locator("#story-log > li").count();
	await api("POST", "/api/push", {image: "acme/api:1.5.0", kind: "same"});
	await until("the story goes on", async () => await page.locator("#story-log > li").count() > entries);
	const ids = await page.locator("#feed > li, #rows > tr").evaluateAll((list) => list.map((e) => e.id));
	assert.equal(new Set(ids).size, ids.length, "something is there twice");
}, {expected: [/ERR_/]});

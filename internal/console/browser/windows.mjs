// More windows beside each other than a browser has connections: those that were
// looked at last follow, the others say that they rest, and none hangs.
import {accessible, api, assert, is, live, row, until, url, walk} from "./harness.mjs";

const states = (pages) => Promise.all(pages.map((p) => p.locator("#link").getAttribute("data-state")));
const following = async (pages) => (await states(pages)).filter((s) => s === "live").length;

await walk(async (page) => {
	const pages = [page];
	while (pages.length < 8) {
		const next = await page.context().newPage();
		await next.goto(url);
		await live(next);
		pages.push(next);
	}
	await until("four follow", async () => await following(pages) === 4);
	assert.deepEqual(await states(pages.slice(4)), Array(4).fill("live"));
	assert.deepEqual(await states(pages.slice(0, 4)), Array(4).fill("resting"));
	await accessible(page, "resting");
	await api("POST", "/api/push", {image: "acme/api:1.5.0"});
	await is(pages[7], "acme/api:1.5.0", "promoted");
	assert.equal(await row(page, "acme/api:1.5.0").count(), 0);

	// Looked at, the first follows again, and another rests for it.
	await page.locator("#link").click();
	await is(page, "acme/api:1.5.0", "promoted");
	await live(page);
	await until("another rests", async () => (await states(pages))[4] === "resting");
	assert.equal(await following(pages), 4);

	// A window that is closed gives its place back, one that is paused keeps none.
	await pages[7].close();
	await pages[6].getByRole("button", {name: "Pause"}).click();
	await pages[6].locator("#link[data-state=paused]").waitFor();
	await pages[1].locator("#link").click();
	await live(pages[1]);
	await pages[2].locator("#link").click();
	await live(pages[2]);
	await api("POST", "/api/push", {image: "acme/api:1.6.0"});
	for (const p of [page, pages[1], pages[2], pages[5]]) await is(p, "acme/api:1.6.0", "promoted");
	assert.equal(await pages[6].locator("#link").getAttribute("data-state"), "paused");
	const ids = await page.locator("#feed > li, #rows > tr").evaluateAll((list) => list.map((e) => e.id));
	assert.equal(new Set(ids).size, ids.length, "something is there twice");
});

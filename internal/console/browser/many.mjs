// Ten thousand promotions: the page stays small, and goes on answering while
// rows change under it.
import {accessible, assert, row, shot, tell, until, walk} from "./harness.mjs";

const nodes = (page) => page.evaluate(() => document.querySelectorAll("*").length);

await walk(async (page) => {
	assert.equal(await page.locator("#rows > tr").count(), 100);
	await page.getByText("of 10\u2009000").waitFor();
	const before = await nodes(page);
	assert.ok(before < 6000, `the page has ${before} nodes`);

	// A row that changes is the same element's place in the table, and no other
	// row is touched: they keep a mark that only this page has.
	await page.evaluate(() => document.querySelectorAll("#rows > tr").forEach((tr) => { tr.mark = true; }));
	await tell("change");
	await row(page, "acme/api:1.9990.0").locator(".badge", {hasText: "failed"}).waitFor();
	assert.equal(await page.evaluate(() => [...document.querySelectorAll("#rows > tr")].filter((tr) => !tr.mark).length), 1);

	// A burst of two thousand more, while the page is used.
	await tell("burst");
	const worst = await page.evaluate(async () => {
		let worst = 0;
		for (const end = performance.now() + 4000; performance.now() < end;) {
			const start = performance.now();
			await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
			worst = Math.max(worst, performance.now() - start);
		}
		return worst;
	});
	console.log(`the longest that the page did not answer: ${Math.round(worst)} ms`);
	assert.ok(worst < 3000, `the page did not answer for ${worst} ms`);
	await page.getByText("of 12\u2009000").waitFor();
	const ids = await page.locator("#rows > tr").evaluateAll((list) => list.map((tr) => tr.id));
	assert.equal(ids.length, 100);
	assert.equal(new Set(ids).size, 100, "a row is there twice");
	assert.ok(await nodes(page) < 6000, "the page has grown");

	// Filter and pages.
	await page.locator("#q").fill("1.777.0");
	await until("one row", async () => await page.locator("#rows > tr").count() === 1);
	assert.equal(await page.evaluate(() => document.activeElement.id), "q", "the filter keeps the focus");
	assert.match(page.url(), /q=1\.777\.0/);
	await page.locator("#q").fill("");
	await page.locator("#older").click();
	await page.getByText("page 2 of 120").waitFor();
	await page.locator("#newer").click();
	await page.getByText("page 1 of 120").waitFor();
	await accessible(page, "many rows");
	await shot(page, "many");
});

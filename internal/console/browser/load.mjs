// A burst, and its chart.
import {accessible, assert, live, shot, url, until, walk} from "./harness.mjs";

await walk(async (page) => {
	await page.getByRole("button", {name: /^Load/}).click();
	await page.locator("#load-pushes").fill("40");
	await page.locator("#load-rate").fill("20");
	await page.getByRole("button", {name: "Send the burst"}).click();
	await page.locator("#load-chart canvas").waitFor();
	await page.locator("#load-words", {hasText: "40 of 40 sent, 40 promoted"}).waitFor({timeout: 90_000});
	await accessible(page, "load");
	await shot(page, "load");
	await page.keyboard.press("Escape");
	await page.goto(`${url}/?q=load/`);
	await live(page);
	await until("all are there", async () => await page.locator("#rows .badge", {hasText: "promoted"}).count() === 40);
	assert.equal(await page.locator("#rows > tr").count(), 40);
});

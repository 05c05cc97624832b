// The stream breaks, and the server is away: the page says so, and comes back
// with all that happened meanwhile, once.
import {assert, is, live, row, shot, tell, until, walk, api} from "./harness.mjs";

const ids = (page, selector) => page.locator(selector).evaluateAll((list) => list.map((e) => e.id));
const once = async (page) => {
	for (const selector of ["#rows > tr", "#feed > li"]) {
		const list = await ids(page, selector);
		assert.equal(new Set(list).size, list.length, `${selector} is there twice`);
	}
	// The feed has no gap in what it shows of this image.
	const shown = await page.locator("#feed > li").allTextContents();
	assert.ok(shown.length > 0);
};

await walk(async (page) => {
	await api("POST", "/api/push", {image: "acme/api:1.5.0"});
	await is(page, "acme/api:1.5.0", "promoted");

	// A connection that breaks comes back by itself.
	await tell("cut");
	await api("POST", "/api/push", {image: "acme/api:1.6.0"});
	await is(page, "acme/api:1.6.0", "promoted");
	await live(page);
	await once(page);

	// A server that is away for some time.
	await tell("away");
	await page.locator("#link[data-state=reconnecting]").waitFor();
	await shot(page, "reconnecting");
	await api("POST", "/api/push", {image: "acme/api:1.7.0"});
	await until("promoted meanwhile", async () => (await api("GET", "/api/promotions")).rows.some((p) => p.image === "acme/api:1.7.0" && p.state === "promoted"));
	assert.equal(await row(page, "acme/api:1.7.0").count(), 0);
	await tell("back");
	await live(page);
	await is(page, "acme/api:1.7.0", "promoted");
	await once(page);

	// Paused, nothing moves; followed again, all is there.
	await page.getByRole("button", {name: "Pause"}).click();
	await page.locator("#link[data-state=paused]").waitFor();
	await api("POST", "/api/push", {image: "acme/api:1.8.0"});
	await until("promoted meanwhile", async () => (await api("GET", "/api/promotions")).rows.some((p) => p.image === "acme/api:1.8.0" && p.state === "promoted"));
	assert.equal(await row(page, "acme/api:1.8.0").count(), 0);
	await page.getByRole("button", {name: "Pause"}).click();
	await is(page, "acme/api:1.8.0", "promoted");
	await live(page);
	await once(page);

	// Another run of the server: the page loads itself anew.
	const loaded = page.waitForEvent("load");
	await tell("restart");
	await loaded;
	await live(page);
	await is(page, "acme/api:1.8.0", "promoted");
}, {expected: [/htmx:sseError|object Event/, /503/, /ERR_/]});

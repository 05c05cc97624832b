// The stream breaks, or the server is down: the page says so, and after it
// reconnects it shows everything that happened in the meantime, once.
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

	// A broken connection is opened again automatically.
	await tell("cut");
	await api("POST", "/api/push", {image: "acme/api:1.6.0"});
	await is(page, "acme/api:1.6.0", "promoted");
	await live(page);
	await once(page);

	// A server that is down for some time.
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

	// While paused, nothing changes; after that, everything is there.
	await page.getByRole("button", {name: "Pause"}).click();
	await page.locator("#link[data-state=paused]").waitFor();
	await api("POST", "/api/push", {image: "acme/api:1.8.0"});
	await until("promoted meanwhile", async () => (await api("GET", "/api/promotions")).rows.some((p) => p.image === "acme/api:1.8.0" && p.state === "promoted"));
	assert.equal(await row(page, "acme/api:1.8.0").count(), 0);
	await page.getByRole("button", {name: "Pause"}).click();
	await is(page, "acme/api:1.8.0", "promoted");
	await live(page);
	await once(page);

	// Paused, and resumed while the server is down: it stays paused, and says why.
	await page.getByRole("button", {name: "Pause"}).click();
	await page.locator("#link[data-state=paused]").waitFor();
	await tell("down");
	await page.getByRole("button", {name: "Pause"}).click();
	await page.locator("#news", {hasText: "does not answer"}).waitFor();
	assert.equal(await page.locator("#pause").getAttribute("aria-pressed"), "true");
	await tell("back");
	await page.getByRole("button", {name: "Pause"}).click();
	await live(page);

	// A story that was dropped in the meantime: the page says so, and is not empty.
	await page.getByRole("link", {name: "acme/api:1.8.0", exact: true}).click();
	await page.getByRole("article", {name: "acme/api:1.8.0"}).waitFor();
	const story = page.url();
	await page.getByRole("button", {name: "Pause"}).click();
	await page.locator("#link[data-state=paused]").waitFor();
	await page.evaluate(() => history.replaceState(null, "", "/promotions/0123456789abcdef0123456789abcdef"));
	await page.getByRole("button", {name: "Pause"}).click();
	await page.getByRole("heading", {name: "This promotion is not known"}).waitFor();
	await page.goto(story);
	await page.getByRole("article", {name: "acme/api:1.8.0"}).waitFor();
	await page.getByRole("link", {name: "Close"}).click();
	await live(page);

	// Another run of the server: the page reloads itself.
	const loaded = page.waitForEvent("load");
	await tell("restart");
	await loaded;
	await live(page);
	await is(page, "acme/api:1.8.0", "promoted");
}, {expected: [/htmx:sseError|object Event/, /503/, /404/, /htmx:sendError|htmx:afterRequest/, /ERR_/]});

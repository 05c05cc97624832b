// Routes are edited, and explained.
import {api, assert, is, shot, walk} from "./harness.mjs";

await walk(async (page) => {
	await page.keyboard.press("r");
	const dialog = page.getByRole("dialog", {name: "Routes"});
	const table = dialog.locator("#routes-text");
	await table.waitFor();
	const before = JSON.parse(await table.inputValue());
	assert.ok(before["acme/api"]);

	// With a mistake nothing changes, and it is named.
	await table.fill(`{"acme/api": {"gitlab": {"projct": "x"}}}`);
	await dialog.getByRole("button", {name: "Save"}).click();
	await page.locator("#news[data-bad=true]", {hasText: "projct"}).waitFor();
	assert.deepEqual(await api("GET", "/api/routes"), before);

	before["acme/api"].tags = {exclude: ["*-rc*"]};
	await table.fill(JSON.stringify(before, null, 2));
	await dialog.getByRole("button", {name: "Save"}).click();
	await page.locator("#news[data-bad=false]", {hasText: "routes"}).waitFor();
	await dialog.locator("#explain-image").fill("acme/api:1.2.0-rc1");
	await dialog.getByRole("button", {name: "Ask"}).click();
	await dialog.locator("#explained", {hasText: "*-rc*"}).waitFor();
	await shot(page, "routes");
	await page.keyboard.press("Escape");

	// And so it is.
	await api("POST", "/api/push", {image: "acme/api:1.2.0-rc1"});
	await api("POST", "/api/push", {image: "acme/api:1.2.0"});
	await is(page, "acme/api:1.2.0", "promoted");
	await page.locator("#feed", {hasText: "tag_rules"}).waitFor();
	assert.equal(await page.getByRole("link", {name: "acme/api:1.2.0-rc1", exact: true}).count(), 0);
}, {expected: [/400/]});

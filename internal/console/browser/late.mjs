// The server is slow with a story, and what it is about goes on meanwhile: the
// story that opens tells of it all the same.
import {api, is, until, url, walk} from "./harness.mjs";

await walk(async (page) => {
	await api("POST", "/api/faults", {stage: "gitlab", answer: "away"});
	await api("POST", "/api/push", {image: "acme/api:1.5.0", kind: "single"});
	await is(page, "acme/api:1.5.0", "waiting");
	let send;
	const sent = new Promise((resolve) => { send = resolve; });
	let held = false;
	await page.route(/\/promotions\/[0-9a-f]{32}$/, async (route) => {
		const response = await route.fetch();
		held = true;
		await sent;
		await route.fulfill({response});
	});
	await page.getByRole("link", {name: "acme/api:1.5.0", exact: true}).click();
	await until("the story is on its way", () => held);
	await api("POST", "/api/well");
	await is(page, "acme/api:1.5.0", "promoted");
	// All is quiet before it arrives.
	const events = async () => (await fetch(url + "/api/events", {headers: {Accept: "application/json"}}).then((answer) => answer.json())).newest;
	let last = -1;
	await until("nothing more happens", async () => {
		await page.waitForTimeout(3000);
		const before = last;
		last = await events();
		return before === last;
	}, 120_000);
	send();
	await page.locator("#story-head .badge", {hasText: "promoted"}).waitFor();
});

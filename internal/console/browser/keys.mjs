// Everything with the keyboard only.
import {assert, api, is, shot, until, walk} from "./harness.mjs";

const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());

await walk(async (page) => {
	await page.keyboard.press("Tab");
	assert.equal(await focused(page), "Skip to the promotions");
	await page.keyboard.press("Enter");
	await page.keyboard.press("?");
	const help = page.getByRole("dialog", {name: "Keys"});
	await help.waitFor();
	await shot(page, "keys");
	await page.keyboard.press("Escape");
	await help.waitFor({state: "hidden"});

	for (const tag of ["1.0.0", "1.1.0", "1.2.0"]) {
		await page.keyboard.press("p");
		assert.equal(await focused(page), "push-image");
		await page.keyboard.type(`acme/api:${tag}`);
		await page.keyboard.press("Enter");
		await is(page, `acme/api:${tag}`, "promoted");
		await page.keyboard.press("Escape");
	}
	await page.keyboard.press("j");
	const first = await focused(page);
	await page.keyboard.press("j");
	const second = await focused(page);
	assert.notEqual(first, second);
	await page.keyboard.press("k");
	assert.equal(await focused(page), first);
	await page.keyboard.press("j");
	await page.keyboard.press("Enter");
	await page.getByRole("article", {name: "acme/api:1.1.0"}).waitFor();
	assert.equal(await focused(page), "story");

	// The tab key goes through the story, and every stop can be seen.
	for (let n = 0; n < 12; n++) {
		await page.keyboard.press("Tab");
		const seen = await page.evaluate(() => {
			const box = document.activeElement.getBoundingClientRect();
			return box.width > 0 && box.height > 0 && document.activeElement.matches(":focus-visible");
		});
		assert.ok(seen, `${await focused(page)} has the focus, and cannot be seen`);
	}
	await page.keyboard.press("Escape");
	await until("the row has the focus again", async () => await focused(page) === second);

	// Filter, and back.
	await page.keyboard.press("/");
	assert.equal(await focused(page), "q");
	await page.keyboard.type("1.2");
	await page.waitForURL(/q=1\.2/);
	assert.equal(await page.locator("#rows > tr").count(), 1);
	assert.equal(await focused(page), "q");
	// Text that is typed while the list is filtered is not lost.
	await page.keyboard.press("Control+A");
	await page.keyboard.type("acme/api:1.1.0", {delay: 350});
	assert.equal(await page.locator("#q").inputValue(), "acme/api:1.1.0");
	await page.waitForURL(/q=acme%2Fapi%3A1\.1\.0/);
	await until("one row", async () => await page.locator("#rows > tr").count() === 1);
	assert.equal(await focused(page), "q");
	await page.keyboard.press("Escape");

	// Pause, and follow.
	await page.keyboard.press("Space");
	await page.locator("#link[data-state=paused]").waitFor();
	await page.keyboard.press("Space");
	await page.locator("#link[data-state=live]").waitFor();

	// Each dialog opens by its key, takes the focus, and gives it back.
	for (const [key, name] of [["f", "Break things"], ["s", "Send any JSON to Webhook"], ["y", "Replay dead letters"], ["t", "Move the time forward"], ["r", "Routes"], ["l", "Load"]]) {
		await page.keyboard.press(key);
		const dialog = page.getByRole("dialog", {name});
		await dialog.waitFor();
		assert.ok(await dialog.evaluate((d) => d.contains(document.activeElement)), `${name} has the focus`);
		await page.keyboard.press("Escape");
		await dialog.waitFor({state: "hidden"});
	}
	await api("POST", "/api/faults", {stage: "gitlab", answer: "away"});
	await page.locator(".faults-now").waitFor();
	await page.keyboard.press("w");
	await page.locator(".faults-now").waitFor({state: "detached"});
});

// The page's policy holds, and a walk that breaks it fails.
import {assert, walk} from "./harness.mjs";

await assert.rejects(walk(async (page) => {
	await page.evaluate(() => {
		const script = document.createElement("script");
		script.textContent = "window.ran = true";
		document.body.append(script);
	});
	assert.equal(await page.evaluate(() => window.ran), undefined, "an inline script has run");
}), /the policy was broken: script-src/);

await assert.rejects(walk(async (page) => {
	await page.evaluate(() => fetch("http://127.0.0.1:9/elsewhere").catch(() => {}));
}), /the policy was broken: connect-src/);

await assert.rejects(walk(async (page) => {
	await page.evaluate(() => document.querySelector("main").setAttribute("style", "color: red"));
}), /the policy was broken: style-src/);

await assert.rejects(walk(async (page) => {
	await page.evaluate(() => setTimeout(() => { throw new Error("on purpose"); }));
	await page.waitForTimeout(200);
}), /an error of a script: Error: on purpose/);

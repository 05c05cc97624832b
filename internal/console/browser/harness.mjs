// What the walks through the console share: a separate browser, and the checks of
// every walk: no error on the browser's console, no breach of the page's policy,
// and requests only to the console's own server.
import assert from "node:assert/strict";
import {mkdirSync, readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {basename, join} from "node:path";

const need = (name) => {
	const value = process.env[name];
	assert.ok(value, `${name} is not set: go test ./internal/console starts this`);
	return value;
};
const require = createRequire(join(need("TOOLS"), "package.json"));
const {chromium} = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

export {assert};
export const url = need("CONSOLE");
const control = need("CONTROL");
const shots = process.env.SCREENSHOTS;
export const patience = 30_000;

// api asks the sandbox, as a script of a user would.
export async function api(method, path, body) {
	const answer = await fetch(url + path, {method, headers: {"Content-Type": "application/json"}, body: body && JSON.stringify(body)});
	const text = await answer.text();
	assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
	return text && JSON.parse(text);
}

// tell makes the test do what no user can, such as cutting the streams.
export async function tell(what) {
	const answer = await fetch(`${control}/${what}`, {method: "POST"});
	assert.ok(answer.ok, `${what}: ${await answer.text()}`);
}

// until waits for something to become true.
export async function until(what, check, wait = patience) {
	for (const end = Date.now() + wait; ;) {
		if (await check()) return;
		assert.ok(Date.now() < end, `not in time: ${what}`);
		await new Promise((resolve) => setTimeout(resolve, 100));
	}
}

// walk opens the console and goes through it. A walk may name errors that it
// causes itself.
export async function walk(steps, {scheme = "light", width = 1440, height = 900, path = "/", expected = [], motion = "no-preference"} = {}) {
	const browser = await chromium.launch({
		executablePath: need("CHROMIUM"),
		chromiumSandbox: false,
		args: ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
	});
	const wrong = [];
	try {
		const context = await browser.newContext({viewport: {width, height}, colorScheme: scheme, reducedMotion: motion, permissions: ["clipboard-read", "clipboard-write"]});
		context.setDefaultTimeout(patience);
		context.on("request", (r) => {
			if (!r.url().startsWith(url + "/") && !r.url().startsWith("data:")) wrong.push(`a request to ${r.url()}`);
		});
		await context.exposeFunction("policyBroken", (what) => wrong.push(`the policy was broken: ${what}`));
		await context.addInitScript(() => {
			document.addEventListener("securitypolicyviolation", (e) => window.policyBroken(`${e.violatedDirective} by ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`));
		});
		const page = await context.newPage();
		page.on("console", (m) => {
			if (m.type() === "error" && !expected.some((e) => e.test(m.text()))) wrong.push(`an error on the console: ${m.text()} ${m.location().url}`);
		});
		page.on("pageerror", (e) => wrong.push(`an error of a script: ${e.stack}`));
		page.on("dialog", (d) => {
			wrong.push(`a dialog: ${d.message()}`);
			d.dismiss();
		});
		try {
			await page.goto(url + path);
			await live(page);
			await steps(page);
			await page.waitForTimeout(200); // what went wrong last is told a moment later
		} catch (e) {
			if (shots) await page.screenshot({path: join(shots, `failed-${basename(process.argv[1], ".mjs")}.png`), fullPage: true}).catch(() => {});
			throw e;
		}
		assert.deepEqual(wrong, []);
	} finally {
		if (wrong.length) console.error(wrong.join("\n"));
		await browser.close();
	}
}

// live waits until the page is connected to its stream.
export const live = (page) => page.locator("#link[data-state=live]").waitFor();

// row finds the rows of an image.
export const row = (page, image) => page.locator("#rows > tr", {has: page.getByRole("link", {name: image, exact: true})});

// is waits until an image's newest promotion is in a state.
export const is = (page, image, state) => row(page, image).first().locator(".badge", {hasText: state}).waitFor();

// shot takes a screenshot, if they are requested.
export async function shot(page, name, options = {}) {
	if (!shots) return;
	mkdirSync(shots, {recursive: true});
	if (options.fullPage) await page.evaluate(() => scrollTo(0, 0));
	await page.screenshot({path: join(shots, `${name}.png`), ...options});
}

// accessible checks the page with axe.
export async function accessible(page, what) {
	await page.evaluate(axe);
	const {violations} = await page.evaluate(() => window.axe.run(document, {resultTypes: ["violations"]}));
	const bad = violations.filter((v) => v.impact === "serious" || v.impact === "critical");
	assert.deepEqual(bad.map((v) => `${v.id}: ${v.help}: ${v.nodes.slice(0, 4).map((n) => `${n.target} ${n.failureSummary}`).join(" | ")}`), [], what);
}

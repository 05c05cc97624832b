// The main states in both colour schemes, wide and narrow: axe checks them, and
// the screenshots are for people.
import {accessible, api, assert, is, live, shot, until, url, walk} from "./harness.mjs";

// Some of everything.
const ended = async (image, state) => until(`${image} is ${state}`, async () => (await api("GET", "/api/promotions")).rows.some((p) => p.image === image && p.state === state));
for (const tag of ["1.5.0", "1.5.1"]) await api("POST", "/api/push", {image: `acme/api:${tag}`});
await ended("acme/api:1.5.1", "promoted");
await api("POST", "/api/faults", {stage: "gitlab", answer: "away", times: 3});
await api("POST", "/api/push", {image: "acme/api:1.6.0", kind: "single"});
await ended("acme/api:1.6.0", "promoted");
await api("POST", "/api/faults", {stage: "pipeline", answer: "fails", times: 1});
await api("POST", "/api/push", {image: "acme/web:2.0.0"});
await ended("acme/web:2.0.0", "failed");
await api("POST", "/api/faults", {stage: "gitlab", answer: "not_found", times: 1});
await api("POST", "/api/push", {image: "acme/worker:0.9.0"});
await ended("acme/worker:0.9.0", "dead");
await api("POST", "/api/faults", {stage: "gitlab", answer: "away"});
await api("POST", "/api/push", {image: "acme/mail:3.1.0"});
await ended("acme/mail:3.1.0", "waiting");
// The README's picture.
const picture = (await api("GET", "/api/promotions")).rows.find((p) => p.image === "acme/api:1.6.0");
await walk(async (page) => {
	await page.locator("#story .slack", {hasText: "✅"}).waitFor();
	await page.locator("#story-bars .bar.bad").first().waitFor({state: "attached"});
	await shot(page, "console");
}, {width: 1280, height: 1200, path: `/promotions/${picture.id}`});
const {rows} = await api("GET", "/api/promotions");
const of = (image) => `/promotions/${rows.find((p) => p.image === image).id}`;

// fits checks that nothing makes the page wider than its window.
const fits = async (page, what) => assert.deepEqual(await page.evaluate(() => {
	const page = document.documentElement;
	if (page.scrollWidth <= innerWidth) return [];
	const out = [...document.querySelectorAll("body *")].filter((e) => !e.closest(".scroll") && e.getBoundingClientRect().right > innerWidth);
	return [`${page.scrollWidth} of ${innerWidth} pixels`, ...out.slice(0, 20).map((e) => `${e.tagName}#${e.id}.${e.className} ${e.textContent.trim().slice(0, 80)}`)];
}), [], `${what} is wider than the window`);

// holds says that no state is cut short, and that the table stays where it is
// whatever the stages come to say.
const holds = async (page, what) => assert.deepEqual(await page.evaluate(() => {
	const wrong = [];
	const badge = document.querySelector("#rows .badge");
	for (const state of ["waiting", "starting", "triggered", "running", "promoted", "skipped", "superseded", "failed", "dead", "silent"]) {
		badge.lastChild.textContent = state;
		const cell = badge.closest("td");
		if (cell.scrollWidth > cell.clientWidth) wrong.push(`${state} is ${badge.offsetWidth} pixels wide, and does not fit`);
	}
	document.getElementById("ahead").textContent = "Clock 2160 h 00 min ahead";
	document.getElementById("link").textContent = "resting, click to follow";
	if (document.documentElement.scrollWidth > innerWidth) wrong.push(`the header is ${document.documentElement.scrollWidth} pixels wide`);
	const top = () => document.getElementById("promotions").getBoundingClientRect().top + scrollY;
	const fill = (stage, word, ...counts) => {
		stage.querySelector(".counts").replaceChildren(...counts.flatMap((text) => [Object.assign(document.createElement("span"), {textContent: text}), " "]));
		stage.querySelector(".word")?.remove();
		if (word) stage.append(Object.assign(document.createElement("span"), {className: "word", textContent: word}));
	};
	const all = [...document.querySelectorAll(".stage .now")].filter((now) => !now.querySelector(".fault"));
	for (const stage of all) fill(stage, "", "1 done");
	const before = top();
	for (const stage of all) fill(stage, "acme/api:1.5.0 answered something that is long and goes on", "123 done", "12 active", "12 waiting", "12 bad");
	if (top() !== before) wrong.push(`the table moves by ${top() - before} pixels`);
	return wrong;
}), [], what);

for (const [scheme, width, height] of [["light", 1440, 900], ["dark", 1440, 900], ["light", 360, 800], ["dark", 360, 800], ["light", 700, 900], ["light", 1100, 900]]) {
	const name = `${{1440: "wide", 360: "narrow"}[width] ?? width}-${scheme}`;
	await walk(async (page) => {
		await is(page, "acme/mail:3.1.0", "waiting");
		await accessible(page, `${name}: overview`);
		await fits(page, `${name}: overview`);
		await shot(page, `overview-${name}`);
		await holds(page, `${name}: overview`);
		for (const [what, image] of [["promoted", "acme/api:1.6.0"], ["failed", "acme/web:2.0.0"], ["dead", "acme/worker:0.9.0"]]) {
			await page.goto(url + of(image));
			await live(page);
			await page.locator("#story-log > li:not(.is-aside) summary").nth(1).click();
			await accessible(page, `${name}: ${what}`);
			await shot(page, `story-${what}-${name}`, {fullPage: true});
			await page.evaluate(() => document.querySelectorAll("details").forEach((d) => d.open = true));
			await fits(page, `${name}: ${what}, all unfolded`);
		}
		// The dialogs once in each scheme, and once in each width.
		const dialogs = name === "wide-light" || name === "narrow-dark";
		for (const [what, label] of !dialogs ? [] : [["faults", /^Break things/], ["send", /^Send JSON/], ["replay", /^Replay/], ["time", /^Time/], ["routes", /^Routes/], ["load", /^Load/], ["help", "Keys and help"]]) {
			await page.getByRole("button", {name: label}).first().click();
			await page.waitForTimeout(300);
			await accessible(page, `${name}: ${what}`);
			await shot(page, `dialog-${what}-${name}`);
			await page.keyboard.press("Escape");
		}
		await page.goto(`${url}/?q=nothing`);
		await live(page);
		await accessible(page, `${name}: nothing matches`);
		if (name === "wide-light") { // what is wrong is found
			await page.evaluate(() => document.documentElement.removeAttribute("lang"));
			await assert.rejects(accessible(page, "without a language"), /html-has-lang/);
		}
		await page.goto(`${url}/promotions/none`);
		await accessible(page, `${name}: not known`);
		await shot(page, `unknown-${name}`);
	}, {scheme, width, height, expected: [/404/]});
}

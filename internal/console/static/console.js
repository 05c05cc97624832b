// What the page cannot do without a script of its own: keys, follow and pause,
// the focus of a story that opens or closes, copying, and the chart.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const typing = (e) => e.matches("input, select, textarea, [contenteditable]");

  // Follow and pause. The stream is the extension's; here it is only known.
  let source, paused = false, lastRow = "";
  const say = (state, words) => {
    const link = $("link");
    if (link.dataset.state === state) return;
    link.dataset.state = state;
    link.textContent = words;
  };
  htmx.createEventSource = (url) => {
    source = new EventSource(url);
    if (paused) source.close();
    return source;
  };
  document.addEventListener("htmx:sseOpen", () => say("live", "live"));
  document.addEventListener("htmx:sseError", () => paused || say("reconnecting", "reconnecting …"));
  const renew = () => htmx.ajax("GET", location.href, {target: "#console", select: "#console", swap: "outerHTML"});
  const follow = (on) => {
    paused = !on;
    $("pause").setAttribute("aria-pressed", String(paused));
    if (!paused) return renew();
    source.close();
    say("paused", "paused");
  };
  $("pause").addEventListener("click", () => follow(paused));

  // A story that opens takes the focus, and gives it back when it closes.
  const mark = () => {
    const story = $("story");
    for (const row of document.querySelectorAll("#rows > [aria-current]")) row.removeAttribute("aria-current");
    if (story) $("row-" + story.dataset.id)?.setAttribute("aria-current", "true");
  };
  document.addEventListener("htmx:afterSwap", (e) => {
    if (e.detail.target?.id !== "side") return mark();
    const story = $("story");
    document.title = (story ? $("story-title").textContent + " · " : "") + "hubrelay console";
    if (story) {
      lastRow = "open-" + story.dataset.id;
      story.focus({preventScroll: true});
      if (story.getBoundingClientRect().top < 0 || innerWidth < 1181) story.scrollIntoView();
    } else {
      ($(lastRow) || $("promotions")).focus();
    }
    mark();
  });
  document.addEventListener("htmx:oobAfterSwap", mark);

  // What came of the last thing done stands for a while.
  let fade;
  document.addEventListener("htmx:beforeSwap", (e) => {
    if (e.detail.target.id !== "news") return;
    e.detail.target.dataset.bad = String(e.detail.xhr.status >= 400);
    clearTimeout(fade);
    fade = setTimeout(() => $("news").replaceChildren(), 12000);
  });
  document.addEventListener("htmx:sendError", (e) => {
    $("news").dataset.bad = "true";
    $("news").textContent = "The sandbox does not answer: was it stopped?";
  });

  document.addEventListener("click", async (e) => {
    const button = e.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText($(button.dataset.copy).textContent);
    $("news").dataset.bad = "false";
    $("news").textContent = "Copied.";
  });

  // Keys. Those of buttons and fields stand on them, as data-key.
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
    const here = document.activeElement;
    if (e.key === "Escape") {
      if (document.querySelector("[popover]:popover-open")) return; // the browser closes it
      if (typing(here)) here.blur();
      else $("close")?.click();
      return;
    }
    if (typing(here)) return;
    if (e.key === " ") {
      if (here.closest("button, a, summary, [popover]")) return;
      e.preventDefault();
      return follow(paused);
    }
    if (e.key === "j" || e.key === "k") {
      const rows = [...document.querySelectorAll("#rows a.open")];
      const at = rows.findIndex((row) => row.closest("tr").contains(here));
      const next = at < 0 ? 0 : at + (e.key === "j" ? 1 : -1);
      rows[Math.max(0, Math.min(next, rows.length - 1))]?.focus();
      return;
    }
    if (e.key === "w") {
      e.preventDefault();
      return htmx.ajax("POST", "/api/well", {target: "#news"});
    }
    const what = document.querySelector(`[data-key="${CSS.escape(e.key)}"]`);
    if (!what) return;
    e.preventDefault();
    for (const open of document.querySelectorAll("[popover]:popover-open")) open.hidePopover();
    if (typing(what)) {
      what.focus();
      what.select?.();
    } else {
      what.click();
    }
  });

  // The chart of a burst, drawn while its dialog is open.
  let chart, timer;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const draw = (load) => {
    const data = ["second", "sent", "promoted", "p50_ms", "p95_ms"].map((name) => load.series[name]);
    const box = $("load-chart");
    if (chart) return chart.setData(data);
    const axis = {stroke: colour("--soft"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}};
    chart = new uPlot({
      width: box.clientWidth, height: 260,
      scales: {x: {time: false}, ms: {range: (u, min, max) => [0, Math.max(max, 10)]}, y: {range: (u, min, max) => [0, Math.max(max, 5)]}},
      axes: [{...axis, label: "seconds"}, {...axis, label: "a second"}, {...axis, label: "ms", scale: "ms", side: 1, grid: {show: false}}],
      series: [{label: "second"}, {label: "sent", stroke: colour("--soft"), dash: [4, 4], width: 2}, {label: "promoted", stroke: colour("--good"), width: 2},
        {label: "p50 ms", scale: "ms", stroke: colour("--accent"), width: 2}, {label: "p95 ms", scale: "ms", stroke: colour("--wait"), width: 2}],
    }, data, box);
  };
  const measure = async () => {
    const answer = await fetch("/api/load");
    if (!answer.ok) return;
    const load = await answer.json();
    if (!load.pushes) return;
    $("load-words").textContent = `${load.sent} of ${load.pushes} sent, ${load.promoted} promoted` + (load.ended ? `, ${load.ended} ended otherwise` : "") +
      (load.promoted ? `; from push to promotion ${Math.round(load.p50_ms)} ms (p50), ${Math.round(load.p95_ms)} ms (p95)` : "");
    if (load.series.second?.length) draw(load);
  };
  $("load").addEventListener("toggle", (e) => {
    clearInterval(timer);
    if (e.newState !== "open") return;
    measure();
    timer = setInterval(measure, 1000);
  });
  mark();
})();

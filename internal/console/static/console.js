// Everything that needs a script: keys, follow and pause, the focus of a story that
// opens or closes, copying, and the chart.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const typing = (e) => e.matches("input, select, textarea, [contenteditable]");

  // Follow and pause. The stream belongs to the extension; here is only its state.
  let source, paused = false, lastRow = "";
  const say = (state, words) => {
    const link = $("link");
    if (link.dataset.state === state) return;
    link.dataset.state = state;
    link.textContent = words;
  };
  // A browser has six connections to a server, and a stream takes one. A page that
  // nobody sees gives its own back, and so do, of those that are seen, all but the
  // four that were looked at last: others could not load any more.
  const streams = new BroadcastChannel("streams"), most = 4, me = `${Date.now()} ${Math.random()}`;
  const later = new Set(); // the pages that were looked at after this one
  let given = false; // the stream was given back
  const has = (stream) => {
    if (stream) later.clear();
    given = !stream;
    streams.postMessage({page: me, stream});
  };
  const close = () => {
    source.close();
    has(false);
  };
  streams.onmessage = ({data}) => {
    if (!data.stream) return later.delete(data.page);
    if (later.add(data.page).size < most || !source || source.readyState === EventSource.CLOSED) return;
    close();
    say("resting", "resting, click to follow");
  };
  htmx.createEventSource = (url) => {
    source?.close();
    source = new EventSource(url);
    if (paused || document.hidden) close();
    else has(true);
    return source;
  };
  document.addEventListener("htmx:sseOpen", () => say("live", "live"));
  document.addEventListener("htmx:sseError", () => paused || say("reconnecting", "reconnecting …"));
  const renew = () => htmx.ajax("GET", location.href, {target: "#console", select: "#console", swap: "outerHTML"})
    .catch(() => {}); // htmx:sendError has told
  // The extension opens another stream, as for a new page.
  const look = () => {
    if (paused || document.hidden || !source) return;
    if (source.readyState === EventSource.OPEN) return has(true);
    if (!given) return;
    for (const e of [$("console"), ...$("console").querySelectorAll("[sse-swap], [hx-trigger^='sse:']")]) htmx.trigger(e, "htmx:afterProcessNode");
  };
  for (const sign of ["focus", "pointerdown", "keydown"]) addEventListener(sign, look);
  document.addEventListener("visibilitychange", () => document.hidden ? source && !paused && close() : look());
  addEventListener("pagehide", () => has(false));
  const follow = (on) => {
    paused = !on;
    $("pause").setAttribute("aria-pressed", String(paused));
    if (!paused) return renew();
    close();
    say("paused", "paused");
  };
  // If the page cannot be loaded any more, for instance for a story that was
  // dropped, the browser shows the error page.
  document.addEventListener("htmx:beforeSwap", (e) => {
    if (e.detail.target.id !== "console" || e.detail.xhr.status < 400) return;
    e.detail.shouldSwap = false;
    location.reload();
  });
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
  // Unchanged elements stay, with their focus, selection and scroll position.
  document.addEventListener("htmx:oobBeforeSwap", (e) => {
    const {fragment, target} = e.detail;
    if (fragment.children.length === 1 && fragment.firstElementChild.isEqualNode(target)) e.detail.shouldSwap = false;
  });

  // The result of the last action is shown on top for a while.
  let fade;
  const news = $("news");
  const rise = (bad) => {
    news.dataset.bad = String(bad);
    news.hidePopover();
    news.showPopover();
    clearTimeout(fade);
    fade = setTimeout(() => news.replaceChildren(), 12000);
  };
  news.showPopover();
  document.addEventListener("htmx:beforeSwap", (e) => e.detail.target === news && rise(e.detail.xhr.status >= 400));
  document.addEventListener("htmx:sendError", (e) => {
    if (e.detail.target?.id === "console" && source.readyState === EventSource.CLOSED) follow(false);
    rise(true);
    news.textContent = "The sandbox does not answer: was it stopped?";
  });
  document.addEventListener("click", async (e) => {
    const button = e.target.closest("[data-copy]");
    if (!button) return;
    const what = $(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(what.textContent);
      rise(false);
      news.textContent = "Copied.";
    } catch { // another address than the loopback has no clipboard, and a browser may refuse it
      getSelection().selectAllChildren(what);
      rise(true);
      news.textContent = "The browser does not let this page copy. It is selected: copy it by hand.";
    }
  });

  // Keys. Those of buttons and fields are in their attribute data-key.
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.defaultPrevented) return;
    if (e.repeat && e.key !== "j" && e.key !== "k") return; // a key that is held does its thing once
    const here = document.activeElement;
    if (e.key === "Escape") {
      if (document.querySelector("[role=dialog]:popover-open")) return; // the browser closes it
      if (typing(here)) here.blur();
      else $("close")?.click();
      return;
    }
    if (typing(here)) return;
    if (e.key === " ") {
      if (here.closest("button, a, summary, [role=dialog]")) return;
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
    for (const open of document.querySelectorAll("[role=dialog]:popover-open")) open.hidePopover();
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
  const draw = (series) => {
    const none = (value) => value || null; // of a second in which nothing was promoted
    const data = [series.second, series.sent, series.promoted, series.p50_ms.map(none), series.p95_ms.map(none)];
    const box = $("load-chart");
    if (chart) return chart.setData(data);
    const axis = {stroke: colour("--soft"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}, size: 56};
    const line = (label, name, more) => ({label, stroke: colour(name), width: 2, points: {show: false}, ...more});
    const fromZero = (least) => ({range: (_, min, max) => [0, Math.max(max, least)]});
    chart = new uPlot({
      width: box.clientWidth, height: 280,
      scales: {x: {time: false}, y: fromZero(5), ms: fromZero(10)},
      axes: [{...axis, label: "seconds", size: 40}, {...axis, label: "a second"}, {...axis, label: "ms", scale: "ms", side: 1, grid: {show: false}, size: 70}],
      series: [{label: "second"}, line("sent", "--soft", {dash: [4, 4]}), line("promoted", "--good"),
        line("p50 ms", "--accent", {scale: "ms", spanGaps: true}), line("p95 ms", "--wait", {scale: "ms", spanGaps: true})],
    }, data, box);
  };
  const measure = async () => {
    const answer = await fetch("/api/load");
    if (!answer.ok) return;
    const load = await answer.json();
    if (!load.pushes) return;
    $("load-words").textContent = `${load.sent} of ${load.pushes} sent, ${load.promoted} promoted` + (load.ended ? `, ${load.ended} ended otherwise` : "") +
      (load.promoted ? `; from push to promotion ${Math.round(load.p50_ms)} ms (p50), ${Math.round(load.p95_ms)} ms (p95)` : "");
    if (load.series.second?.length) draw(load.series);
  };
  $("load").addEventListener("toggle", (e) => {
    clearInterval(timer);
    if (e.newState !== "open") return;
    measure();
    timer = setInterval(measure, 1000);
  });
  mark();
})();

// The plain page: totals and a chart, refreshed every two seconds. What is not known is shown as a dash, never as 0.
"use strict";

const REFRESH_MS = 2000;
const TIMEOUT_MS = 8000;
const ROWS_MAX = 30;
const UNKNOWN = "–";

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en-US");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortTime = new Intl.DateTimeFormat(undefined, { weekday: "short", hour: "2-digit", minute: "2-digit" });
const show = (value) => (typeof value === "number" ? number.format(value) : UNKNOWN);

async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), headers: { accept: "application/json" } });
  const body = await response.json();
  // A failing node answers /health with an error status and a body that says why.
  if (!response.ok && path !== "/health") throw new Error(body.detail || body.title || `status ${response.status}`);
  return body;
}

function query(parameters) {
  return get("/v1/query?" + new URLSearchParams(parameters));
}

function midnight() {
  const today = new Date();
  return today.setHours(0, 0, 0, 0);
}

function showHealth(health) {
  const status = ["ok", "degraded", "failing"].includes(health?.status) ? health.status : "failing";
  element("health").className = "health " + status;
  const about = [health?.node, health?.version && "v" + health.version].filter(Boolean).join(" · ");
  const words = { ok: "healthy", degraded: "degraded", failing: health ? "failing" : "not reachable" };
  element("health-text").textContent = words[status] + (about ? " · " + about : "");
}

function showChart(answer, toMs) {
  const stepMs = 15 * 60 * 1000;
  const fromMs = Math.floor(Date.parse(answer.receipt.from) / stepMs) * stepMs;
  const bars = Math.max(1, Math.ceil((toMs - fromMs) / stepMs));
  const highest = Math.max(1, ...answer.data.map((row) => row.values.count ?? 0));
  const chart = element("chart");
  const rects = answer.data.map((row) => {
    const height = Math.max(1, ((row.values.count ?? 0) / highest) * 136);
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    rect.setAttribute("x", ((Date.parse(row.time) - fromMs) / stepMs / bars) * 960);
    rect.setAttribute("y", 140 - height);
    rect.setAttribute("width", Math.max(1, 960 / bars - 2));
    rect.setAttribute("height", height);
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = `${shortTime.format(Date.parse(row.time))}: ${show(row.values.count)} events`;
    rect.append(title);
    return rect;
  });
  chart.replaceChildren(...rects);
  element("axis-from").textContent = shortTime.format(fromMs);
  element("axis-top").textContent = `highest ${show(highest)}`;
}

function cell(text, className) {
  const td = document.createElement("td");
  if (className) td.className = className;
  td.textContent = text;
  return td;
}

function showEvents(day, today) {
  const todayOf = new Map(today?.data.map((row) => [row.group.event, row.values.count]));
  const rows = day.data.slice(0, ROWS_MAX);
  const largest = Math.max(1, ...rows.map((row) => row.values.count));
  element("events").replaceChildren(...rows.map((row) => {
    const name = row.group.event ?? "";
    const tr = document.createElement("tr");
    const first = cell(name);
    first.title = name;
    const bar = document.createElement("div");
    bar.className = "bar";
    bar.style.width = (row.values.count / largest) * 100 + "%";
    const share = cell("", "wide");
    share.append(bar);
    // An event that is absent from a complete answer about today truly had none; without the answer nothing is known.
    const count = todayOf.get(name) ?? (today?.receipt.complete ? 0 : null);
    tr.append(first, cell(show(row.values.count)), cell(show(count)), cell(show(row.values.users)), share);
    return tr;
  }));
  const receipt = day.receipt;
  const parts = [
    receipt.complete ? "Complete" : "Not complete",
    `${receipt.shards.answered} of ${receipt.shards.asked} shards`,
    `${receipt.freshness_ms} ms fresh`,
    receipt.error?.users ? `users ± ${(receipt.error.users * 100).toFixed(1)} %` : "users exact",
    `answered in ${receipt.took_ms} ms`,
    `at ${clock.format(Date.now())}`,
  ];
  if (day.data.length > ROWS_MAX || day.cursor) parts.push(`the ${ROWS_MAX} most frequent`);
  element("receipt").textContent = parts.join(" · ");
}

function total(answer) {
  if (!answer?.receipt.complete || answer.cursor) return null;
  return answer.data.reduce((sum, row) => sum + row.values.count, 0);
}

async function refresh() {
  const nowMs = Date.now();
  const [health, recent, day, today, chart] = await Promise.allSettled([
    get("/health"),
    query({ metric: "*", agg: "count,sessions", range: "5m" }),
    query({ metric: "*", agg: "count,users", range: "24h", group_by: "event", order: "-value" }),
    query({ metric: "*", agg: "count", from: midnight(), to: nowMs + 60000, group_by: "event" }),
    query({ metric: "*", agg: "count", range: "24h", step: "15m" }),
  ]);
  showHealth(health.value);
  const failed = [recent, day, today, chart].find((answer) => answer.status === "rejected");
  document.body.classList.toggle("stale", Boolean(failed));
  element("notice").hidden = !failed;
  if (failed) {
    element("notice").textContent = `The numbers cannot be read just now (${failed.reason.message}); trying again.`;
  }
  const now = recent.value?.data[0]?.values;
  element("recent").textContent = show(now?.count);
  element("active").textContent = show(now?.sessions);
  element("today").textContent = show(total(today.value));
  element("day").textContent = show(total(day.value));
  if (day.value) {
    const isEmpty = day.value.receipt.complete && day.value.data.length === 0;
    element("empty").hidden = !isEmpty;
    element("filled").hidden = isEmpty;
    showEvents(day.value, today.value);
  }
  if (chart.value) showChart(chart.value, nowMs);
}

async function run() {
  if (!document.hidden) {
    try {
      await refresh();
    } catch (error) {
      element("notice").hidden = false;
      element("notice").textContent = `This page met an answer it does not understand (${error.message}).`;
    }
  }
  setTimeout(run, REFRESH_MS);
}

element("ask-command").textContent =
  `curl -s '${location.origin}/v1/query?metric=*&agg=count,users&range=24h&group_by=event'`;
element("send-command").textContent =
  `curl -s ${location.origin}/v1/events -H 'content-type: application/json' -d '{"event":"page_view","session_id":"s1","properties":{"page":"/"}}'`;
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = element(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    } catch {
      // No clipboard without HTTPS on another host: select it, so that a key press copies.
      getSelection().selectAllChildren(code);
    }
  });
}
run();

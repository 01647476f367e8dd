// The live page: takes the news of the server and shows them.
"use strict";

const $ = (id) => document.getElementById(id);
const number = (value, unit) => Charts.number(value, unit);
const whole = (value) => (value === undefined ? "–" : Math.round(value).toLocaleString("en").replaceAll(",", "\u202f"));
const LINES = 8; // stages with a line of their own in a chart

const past = { times: [], stages: {} };
let keep = 600;
let latest = null;
let updates = [];

function make(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

// -- totals, alarms, stages -----------------------------------------------------------------------

function tiles(news) {
  const stages = news.stages;
  const total = (kind, name) => stages.reduce((sum, one) => sum + (one[kind][name] || 0), 0);
  // An object is counted once, at the end of the chain.
  const out = (kind, name) => stages.reduce((sum, one) => sum + (news.out.includes(one.channel) ? one[kind][name] || 0 : 0), 0);
  const latency = Math.max(...stages.map((one) => one.latency.p90 ?? -1));
  const restarts = stages.reduce((sum, one) => sum + one.restarts, 0);
  const running = stages.filter((one) => one.tone === "good").length;
  const shown = [
    ["Stages running", `${running} of ${stages.length}`, false],
    ["Rate", `${number(out("rates", "processed"))} /s`, false],
    ["Processed", whole(out("counts", "processed")), false],
    ...(total("counts", "filtered") > 0 ? [["Filtered", whole(total("counts", "filtered")), false]] : []),
    ["Queued", whole(total("counts", "queued")), false],
    ...(latency >= 0 ? [["Latency, 90 %", number(latency, "s"), false]] : []),
    // Later stages miss what was lost before them: each loss is told once.
    ["Missed", whole(news.missed), news.missed > 0],
    ...(total("counts", "unknown") > 0 ? [["Unknown", whole(total("counts", "unknown")), true]] : []),
    ...(restarts > 0 ? [["Restarts", whole(restarts), true]] : []),
    ...["rejected", "errors"].map((name) => [name[0].toUpperCase() + name.slice(1), whole(total("counts", name)), total("counts", name) > 0]),
  ];
  $("tiles").replaceChildren(...shown.map(([name, value, bad]) => make("div", { className: `tile card${bad ? " bad" : ""}` },
    make("div", { className: "name", textContent: name }), make("div", { className: "value", textContent: value }))));
}

function alarmLine(event, isActive) {
  const ok = event.change === "leave";
  const time = new Date(event.time * 1000).toLocaleTimeString("en-GB");
  return make("div", { className: "alarm" },
    make("time", { textContent: isActive ? `since ${time}` : time }),
    make("span", { className: `chip ${ok ? "OK" : "ALARM"}`, textContent: ok ? "OK" : "ALARM" }),
    make("p", { textContent: event.message }));
}

function alarms(news) {
  $("alarms").hidden = news.active.length === 0;
  $("active").replaceChildren(...news.active.map((event) => alarmLine(event, true)));
  const count = $("alarm-count");
  count.hidden = news.active.length === 0;
  count.className = "chip ALARM";
  count.textContent = `${news.active.length} alarm${news.active.length === 1 ? "" : "s"}`;
  if (news.events.length) $("events").replaceChildren(...news.events.map((event) => alarmLine(event, false)));
}

const HEADS = [...document.querySelectorAll("#stages th[data-count]")];
const COLUMNS = HEADS.map((head) => head.dataset.count);
const has = (mark) => new Set(HEADS.filter((head) => mark in head.dataset).map((head) => head.dataset.count));
const LOSSES = has("loss");
const RARE = has("rare"); // shown only where there are any
const rows = new Map();

function cell(label, className = "") {
  const made = make("td", { className });
  if (label) made.dataset.label = label;
  return made;
}

// Rows stay what they are and only their texts change, or a click that lasts would be lost.
function makeRow(channel) {
  const name = make("b");
  const message = make("span", { className: "sub bad-text" });
  const state = make("span");
  const rate = cell("rate", "rate");
  const counts = COLUMNS.map((column) => cell(column));
  const latency = cell("latency 90 %");
  const last = cell("last id");
  const button = make("button", { type: "button", textContent: "Control", className: "open-control" });
  const stateCell = cell("state", "left");
  stateCell.append(state);
  const element = make("tr", {},
    make("td", { className: "left wide" }, name, make("span", { className: "sub", textContent: channel }), message),
    stateCell, rate, ...counts, latency, last, make("td", {}, button));
  element.dataset.channel = channel;
  const update = (one) => {
    name.textContent = one.label;
    message.textContent = one.message;
    state.textContent = one.state;
    state.className = `chip ${one.tone}`;
    rate.textContent = `${number(one.rates.processed)}/s`;
    COLUMNS.forEach((column, n) => {
      counts[n].textContent = whole(one.counts[column]);
      if (LOSSES.has(column)) counts[n].className = one.counts[column] > 0 ? "bad-text" : "";
    });
    latency.textContent = number(one.latency.p90, "s");
    last.textContent = one.last_id;
    button.hidden = !one.control;
  };
  return { element, update };
}

function showStages(stages) {
  const body = $("stages").tBodies[0];
  for (const one of stages) {
    if (!rows.has(one.channel)) {
      rows.set(one.channel, makeRow(one.channel));
      body.append(rows.get(one.channel).element);
    }
    rows.get(one.channel).update(one);
  }
  for (const name of RARE) {
    const none = !stages.some((one) => one.counts[name] > 0);
    for (const cell of document.querySelectorAll(`#stages [data-count="${name}"], #stages [data-label="${name}"]`)) cell.hidden = none;
  }
}

// -- charts ---------------------------------------------------------------------------------------

function remember(news) {
  const before = past.times.length;
  past.times.push(news.time);
  for (const one of news.stages) {
    const mine = (past.stages[one.channel] ||= {});
    const values = { rate: one.rates.processed ?? 0, queued: one.counts.queued ?? 0, latency: one.latency.p90 ?? null };
    for (const [name, value] of Object.entries(values)) (mine[name] ||= new Array(before).fill(null)).push(value);
  }
  if (past.times.length > keep) {
    past.times.shift();
    for (const mine of Object.values(past.stages)) for (const values of Object.values(mine)) values.shift();
  }
}

function chartOf(name) {
  const unit = { rate: "", queued: "", latency: "s" }[name];
  const stages = latest.stages.filter((one) => past.stages[one.channel]);
  const line = (label, mean) => ({ label, times: past.times, mean });
  if (stages.length <= LINES) {
    return { unit, series: stages.map((one) => line(one.label, past.stages[one.channel][name])) };
  }
  const all = stages.map((one) => past.stages[one.channel][name]);
  const each = (pick) => past.times.map((_, n) => {
    const values = all.map((v) => v[n]).filter((v) => v !== null && v !== undefined);
    return values.length ? pick(values) : null;
  });
  const lines = [line("largest", each((v) => Math.max(...v))), line("mean", each((v) => v.reduce((a, b) => a + b, 0) / v.length)), line("smallest", each((v) => Math.min(...v)))];
  return { unit, series: lines };
}

function charts() {
  if (past.times.length < 2 || !latest.stages.length) return;
  if (updates.length) updates.forEach((update) => update());
  else updates = [...document.querySelectorAll("[data-series]")].map((holder) => Charts.keep(holder, () => chartOf(holder.dataset.series)));
}

// -- image ----------------------------------------------------------------------------------------

function imageChoices(channels) {
  const select = $("image-channel");
  $("image-section").hidden = channels.length === 0;
  if ([...select.options].map((option) => option.value).join() === channels.join()) return;
  const chosen = select.value;
  select.replaceChildren(...channels.map((name) => make("option", { value: name, textContent: name })));
  if (channels.includes(chosen)) select.value = chosen;
}

let imageBusy = false;
async function image() {
  if (imageBusy || document.hidden || !$("image-channel").value) return;
  imageBusy = true;
  const asked = new URLSearchParams({ channel: $("image-channel").value, colormap: $("colormap").value, log: $("log").checked });
  try {
    const answer = await fetch(`/api/image?${asked}`);
    if (!answer.ok) throw new Error((await answer.json()).detail);
    // As data, for objects of the browser's own would have to be given back one by one.
    const data = await new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = failed;
      answer.blob().then((blob) => reader.readAsDataURL(blob));
    });
    $("image").src = data;
    $("image-note").textContent = "";
  } catch (error) {
    $("image-note").textContent = error.message;
  }
  imageBusy = false;
}

// -- control --------------------------------------------------------------------------------------

let controlled = "";
$("stages").addEventListener("click", (event) => {
  if (!event.target.classList.contains("open-control")) return;
  controlled = event.target.closest("tr").dataset.channel;
  const stage = latest.stages.find((one) => one.channel === controlled);
  $("control-title").textContent = `Command to ${stage.label}`;
  $("control-channel").textContent = stage.control;
  $("token").value = sessionStorage.getItem("token") || "";
  say("");
  needsArgs();
  $("control").showModal();
});

function needsArgs() {
  $("args-label").hidden = $("command").value !== "configure";
}

function say(text, ok = true) {
  $("reply").textContent = text;
  $("reply").className = ok ? "" : "bad";
}

async function send() {
  const command = $("command").value;
  const args = command === "configure" ? $("args").value : "";
  if (command === "stop" && !confirm(`End ${$("control-title").textContent.replace("Command to ", "")}?`)) return;
  $("send").disabled = true;
  say("waiting for the reply…");
  try {
    const answer = await fetch("/api/command", {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${$("token").value}` },
      body: JSON.stringify({ channel: controlled, command, args }),
    });
    const told = await answer.json().catch(() => ({ detail: answer.statusText }));
    if (answer.ok) sessionStorage.setItem("token", $("token").value);
    say(told.reply ?? (typeof told.detail === "string" ? told.detail : JSON.stringify(told.detail)), answer.ok && told.ok);
  } catch (error) {
    say(error.message, false);
  }
  $("send").disabled = false;
}

$("command").addEventListener("change", needsArgs);
$("send").addEventListener("click", send);
for (const id of ["image-channel", "colormap", "log"]) $(id).addEventListener("change", image);

// -- news -----------------------------------------------------------------------------------------

function link(text, state) {
  $("link").textContent = text;
  $("link").className = `chip ${state}`;
}

function show(news) {
  latest = news;
  $("clock").textContent = new Date(news.time * 1000).toLocaleTimeString("en-GB");
  remember(news);
  if (document.hidden) return;
  tiles(news);
  alarms(news);
  Chain.draw($("chain"), news.stages);
  showStages(news.stages);
  charts();
  imageChoices(news.images);
  image();
}

async function begin() {
  try {
    const found = await (await fetch("/api/history")).json();
    Object.assign(past, found);
    keep = found.keep;
  } catch {
    // The news come all the same; charts begin empty.
  }
  const source = new EventSource("/api/events");
  source.onopen = () => link("live", "OK");
  source.onmessage = (event) => show(JSON.parse(event.data));
  source.onerror = () => link("connection lost", "ALARM");
}

begin();

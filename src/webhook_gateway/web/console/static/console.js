// What pages do beyond links and forms. Everything works without it, too.
"use strict";

// Where a browser checks what is parsed as HTML: only what our own server has rendered, escaped, gets there.
if (window.trustedTypes) {
  window.trustedTypes.createPolicy("default", { createHTML: (text) => text });
}

const meant = (event, selector) => event.target instanceof Element && event.target.closest(selector);

// A one-time code comes in the fragment, which no server and no log sees.
const code = document.querySelector("input[data-code]");
if (code && /^#wh[cp]_/.test(location.hash)) {
  code.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  code.form.requestSubmit();
}

document.addEventListener("click", (event) => {
  const copies = meant(event, "[data-copy]");
  if (copies) {
    navigator.clipboard.writeText(copies.dataset.copy).then(() => say(copies.dataset.copied || "Copied."));
  }
  const pauses = meant(event, "[data-pauses]");
  if (pauses) {
    const paused = pauses.getAttribute("aria-pressed") !== "true";
    pauses.setAttribute("aria-pressed", String(paused));
    say(paused ? "This page stays as it is." : "This page is kept current.");
    if (!paused) refresh();
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.submitter?.dataset.downloads) return;
  if (form.dataset.sent) event.preventDefault();
  else if (form.method === "post") {
    form.dataset.sent = "yes";
    setTimeout(() => form.dataset.sent && say("Under way …"), 400);
  }
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

// Who sent a form that was refused, or was answered with a count, goes on there.
const told = document.querySelector("main [role=alert][tabindex], #found");
if (told) told.focus();

// The browser's zone, offered beside UTC.
for (const option of document.querySelectorAll("option[data-local]")) {
  option.value = Intl.DateTimeFormat().resolvedOptions().timeZone;
  option.textContent = `This computer (${option.value})`;
  option.hidden = option.disabled = false;
  option.selected = option.value === option.dataset.local && option.value !== "UTC";
}

// One stream says that something was counted; the page then asks for what it shows. Without a stream it asks every
// ten seconds, and with one each minute, since nothing is counted where nothing goes on.
const QUIET = 60_000;
let stream = null, asked = Date.now(), late = false;

function follow() {
  if (stream || document.hidden || !document.querySelector("#live[data-hx-get]")) return;
  stream = new EventSource(`/${location.pathname.split("/")[1]}/live`);
  stream.addEventListener("stats", refresh);
  stream.onerror = () => {
    if (stream.readyState !== EventSource.CLOSED) return; // it comes again by itself
    stream = null;
    setTimeout(follow, QUIET);
  };
}

function refresh() {
  const live = document.getElementById("live");
  if (live) htmx.trigger(live, "stats");
}

// Never moves what somebody points at, is in, has opened, or has asked to keep: it is late, then.
function held() {
  const live = document.getElementById("live");
  const paused = document.querySelector("[data-pauses][aria-pressed=true]");
  return paused || document.hidden || (live && (live.matches(":hover, :focus-within") || live.querySelector("[open]")));
}

document.addEventListener("htmx:before:request", (event) => {
  const polls = event.detail.ctx.sourceEvent.type === "every";
  if (polls && stream?.readyState === EventSource.OPEN && Date.now() - asked < QUIET) event.preventDefault();
  else if ((late = Boolean(held()))) event.preventDefault();
  else asked = Date.now();
});
for (const leaves of ["pointerout", "focusout", "toggle"]) {
  document.addEventListener(leaves, () => setTimeout(() => late && !held() && refresh()), true);
}
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else {
    follow();
    refresh();
  }
});
follow();

// The end of a session is announced before it comes: a minute earlier than said, since its use is noted once a minute.
const ends = document.querySelector("[data-ends]");
if (ends) setTimeout(() => say(ends.dataset.ends), (ends.dataset.left - 180) * 1_000);

function say(text) {
  document.getElementById("says").textContent = text;
}

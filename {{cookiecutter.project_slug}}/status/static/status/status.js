// Renews the figures in place. When there is no answer it says so: what is shown then is from before.
"use strict";

const shown = document.getElementById("status");
const lost = document.getElementById("status-lost");
const every = Number(shown.dataset.every) * 1000;

async function renew() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(every) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("status");
    if (!answer.ok || !fresh) throw new Error(`status ${answer.status}`);
    const focused = shown.contains(document.activeElement) && document.activeElement.getAttribute("href");
    shown.replaceChildren(...fresh.childNodes);
    if (focused) shown.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
    lost.hidden = true;
  } catch {
    document.getElementById("status-lost-at").textContent = document.getElementById("status-at").textContent;
    lost.hidden = false;
  }
  setTimeout(renew, every);
}

setTimeout(renew, every);

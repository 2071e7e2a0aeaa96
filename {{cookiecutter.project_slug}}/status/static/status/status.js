// Renews the figures in place. Where that fails it says so: what is shown then is from before.
"use strict";

const shown = document.getElementById("status");
const lost = document.getElementById("status-lost");
const pause = document.getElementById("status-pause");
const every = Number(shown.dataset.every) * 1000;
let isPaused = false;

async function renew() {
  const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(every) });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("status");
  if (!answer.ok || !fresh) throw new Error(`status ${answer.status}, or the page of the login`);
  const focused = shown.contains(document.activeElement) && document.activeElement.getAttribute("href");
  shown.replaceChildren(...fresh.childNodes);
  if (focused) shown.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

async function renewAgainAndAgain() {
  if (!isPaused && !document.hidden) {
    try {
      await renew();
      lost.hidden = true;
    } catch {
      document.getElementById("status-lost-at").textContent = document.getElementById("status-at").textContent;
      lost.hidden = false;
    }
  }
  setTimeout(renewAgainAndAgain, every);
}

pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.textContent = isPaused ? "Go on" : "Pause";
});
setTimeout(renewAgainAndAgain, every);

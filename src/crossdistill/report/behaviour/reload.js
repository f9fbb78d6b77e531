// A page that `crossdistill report --watch` wrote loads itself again until the study is complete, and keeps what the reader had open.
(() => {
  const seconds = Number(document.documentElement.dataset.reload);
  const KEY = `crossdistill-view ${location.pathname}`;
  const storage = {
    get: () => {
      try {
        return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
      } catch {
        return {};
      }
    },
    set: (value) => {
      try {
        sessionStorage.setItem(KEY, JSON.stringify(value));
      } catch {
        // Nothing is kept where storage is forbidden.
      }
    },
  };
  const heading = (details) => `${details.closest("section")?.id} ${details.querySelector("summary")?.textContent.trim()}`;
  const folds = [...document.querySelectorAll("main details")];
  const before = storage.get();
  if (before.scroll !== undefined) {
    for (const details of folds) if (before.folds && heading(details) in before.folds) details.open = before.folds[heading(details)];
    history.scrollRestoration = "manual";
    requestAnimationFrame(() => scrollTo({ top: before.scroll, behavior: "instant" }));
  }
  if (!seconds) {
    // The last of these pages: it finds its reader's place, and is a page like any other from then on.
    storage.set({});
    addEventListener("load", () => requestAnimationFrame(() => (history.scrollRestoration = "auto")));
    return;
  }

  let paused = Boolean(before.paused);
  const keep = () => storage.set({ scroll: scrollY, paused, folds: Object.fromEntries(folds.map((details) => [heading(details), details.open])) });
  const note = document.createElement("p");
  note.className = "live uncopied";
  const button = document.createElement("button");
  button.type = "button";
  const say = () => {
    button.textContent = paused ? "Go on" : "Pause";
    words.textContent = paused ? "This page stands still while the study runs. " : `The study is running; this page loads itself again every ${seconds} s. `;
  };
  const words = document.createElement("span");
  note.append(words, button);
  button.addEventListener("click", () => {
    paused = !paused;
    say();
    keep();
  });
  document.querySelector("header").append(note);
  say();

  setInterval(() => {
    const busy = document.querySelector("dialog[open]") || document.activeElement?.matches("input, select") || String(getSelection());
    if (paused || busy || document.hidden) return;
    keep();
    location.reload();
  }, 1000 * seconds);
})();

// The rail: folded on a phone, open beside the page on a wide screen; the section that is being read is marked.
(() => {
  const rail = document.querySelector(".rail");
  const folds = [...rail.querySelectorAll("details")];
  const wide = matchMedia("(min-width: 72rem)");
  const fold = () => {
    for (const details of folds) details.open = wide.matches;
  };
  wide.addEventListener("change", fold);
  fold();

  // On a phone the open list lies over the page: only one at a time, gone with Escape, a choice, or a tap beside it.
  const close = (but) => {
    for (const details of folds) if (!wide.matches && details !== but) details.open = false;
  };
  for (const details of folds) details.addEventListener("toggle", () => details.open && close(details));
  rail.querySelector("nav").addEventListener("click", (event) => event.target.closest("a") && close());
  document.addEventListener("pointerdown", (event) => rail.contains(event.target) || close());
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());

  const links = new Map([...rail.querySelectorAll("nav a")].map((link) => [document.getElementById(link.hash.slice(1)), link]));
  const mark = () => {
    const passed = [...links.keys()].filter((section) => section.getBoundingClientRect().top < innerHeight / 3);
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 2;
    const current = atEnd && scrollY > 0 ? [...links.keys()].at(-1) : (passed.at(-1) ?? links.keys().next().value);
    for (const [section, link] of links) {
      if (section === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };
  let asked = 0;
  addEventListener("scroll", () => (asked ||= requestAnimationFrame(() => ((asked = 0), mark()))), { passive: true });
  mark();
})();

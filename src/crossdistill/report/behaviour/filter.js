// The filter: hides whatever belongs to another pair, method, probe or seed than the chosen ones, and keeps the choice in the address,
// behind the place on the page ("#curves&method=kd"), so that a link can be shared. What belongs to several lists them ("0 1").
(() => {
  const form = document.querySelector("form.view");
  const selects = [...form.querySelectorAll("select[data-fact]")];
  const status = form.querySelector(".hidden-count");
  const clear = form.querySelector(".clear");
  const facts = selects.map((select) => select.dataset.fact);
  const tagged = [...document.querySelectorAll(facts.map((fact) => `main [data-${fact}]`).join(","))];
  form.hidden = false;

  const belongs = (element, fact, value) => {
    const own = element.dataset[fact];
    return own === undefined || own === value || own.split(" ").includes(value);
  };
  for (const select of selects) {
    // Only what the page holds can be chosen, and only where there is a choice.
    for (const option of [...select.options].slice(1)) {
      const found = tagged.some((element) => element.dataset[select.dataset.fact] !== undefined && belongs(element, select.dataset.fact, option.value));
      if (!found) option.remove();
    }
    select.closest("label").hidden = select.options.length < 3;
  }
  form.querySelector(".filters").hidden = selects.every((select) => select.options.length < 3);

  const chosen = () => selects.filter((select) => select.value !== "");

  const hideColumns = (table) => {
    const heads = [...(table.tHead?.rows[table.tHead.rows.length - 1]?.cells ?? [])];
    heads.forEach((head, column) => {
      if (!facts.some((fact) => fact in head.dataset)) return;
      const hidden = head.classList.contains("filtered-out");
      for (const row of table.tBodies[0].rows) row.cells[column]?.classList.toggle("filtered-out", hidden);
    });
  };

  const apply = () => {
    const wanted = chosen();
    for (const element of tagged) {
      element.classList.toggle("filtered-out", !wanted.every((select) => belongs(element, select.dataset.fact, select.value)));
    }
    document.querySelectorAll("main table").forEach(hideColumns);
    const rows = [...document.querySelectorAll("main tbody tr")].filter((row) => row.closest(".filtered-out")).length;
    const drawings = tagged.filter((element) => element.matches(".filtered-out") && !element.closest("table") && !element.parentElement.closest(".filtered-out")).length;
    const parts = [[rows, "table row"], [drawings, "other part"]].filter(([n]) => n).map(([n, noun]) => `${n} ${noun}${n === 1 ? "" : "s"}`);
    status.textContent = wanted.length ? `${parts.join(" and ") || "nothing"} hidden` : "";
    clear.hidden = !wanted.length;
    form.classList.toggle("active", wanted.length > 0);
    document.documentElement.dispatchEvent(new CustomEvent("filtered"));
  };

  const place = (hash) => hash.slice(1).split("&").find((part) => part && !part.includes("=")) ?? "";

  const remember = () => {
    const parts = chosen().map((select) => `${select.dataset.fact}=${encodeURIComponent(select.value)}`);
    const hash = [place(location.hash), ...parts].filter((part, index) => part || (index === 0 && parts.length)).join("&");
    history.replaceState(history.state, "", hash ? `#${hash}` : location.pathname + location.search);
  };

  const recall = () => {
    const given = location.hash.slice(1).split("&").filter((part) => part.includes("="));
    if (!given.length) return false;
    const values = new Map(given.map((part) => [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)]));
    for (const select of selects) {
      let value = values.get(select.dataset.fact) ?? "";
      try {
        value = decodeURIComponent(value);
      } catch {
        value = ""; // not an address of ours
      }
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    }
    return true;
  };

  const go = () => document.getElementById(place(location.hash))?.scrollIntoView();

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (!selects.includes(event.target)) return;
    apply();
    remember();
    announce(status.textContent || "Everything is shown");
  });
  clear.addEventListener("click", () => {
    for (const select of selects) select.value = "";
    apply();
    remember();
    announce("Everything is shown");
    selects.find((select) => !select.closest("label").hidden)?.focus();
  });
  // A link to a section carries no filter: it stays as it was, and returns to the address.
  addEventListener("hashchange", () => {
    if (recall()) {
      apply();
      go();
    } else remember();
  });
  if (recall()) {
    apply();
    go();
  }

  const theme = form.querySelector("select.theme");
  theme.value = document.documentElement.dataset.theme ?? "";
  theme.addEventListener("change", () => {
    wear(theme.value);
    remembered.set("theme", theme.value);
  });
})();

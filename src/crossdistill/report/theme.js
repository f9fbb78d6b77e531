// Before the first paint: the theme that the reader chose earlier, and the word that scripts run.
const remembered = {
  // Storage may be forbidden for a page opened from a file; then nothing is remembered.
  get: (name) => {
    try {
      return localStorage.getItem(`crossdistill-${name}`);
    } catch {
      return null;
    }
  },
  set: (name, value) => {
    try {
      localStorage.setItem(`crossdistill-${name}`, value);
    } catch {
      // See above.
    }
  },
};

const wear = (theme) => {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
};

document.documentElement.classList.add("scripted");
wear(remembered.get("theme"));

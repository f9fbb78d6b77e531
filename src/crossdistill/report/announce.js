// One place where changes are said aloud for those who do not see them.
const announce = (() => {
  const place = document.createElement("div");
  place.className = "aloud";
  place.setAttribute("role", "status");
  document.body.append(place);
  return (text) => {
    place.textContent = text;
  };
})();

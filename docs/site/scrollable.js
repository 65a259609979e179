// Wide tables scroll. Without a tab stop, nobody can scroll them by the keyboard.
function makeFocusable() {
  for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
    else table.removeAttribute("tabindex");
  }
}

// The theme wraps the tables of a page once it has loaded, also after a click that loads only the content.
new MutationObserver(makeFocusable).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", makeFocusable);
makeFocusable();

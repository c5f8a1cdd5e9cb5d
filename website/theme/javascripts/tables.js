// The theme lets wide tables scroll; let the keyboard scroll them too.
document$.subscribe(() => {
  for (const region of document.querySelectorAll(".md-typeset__scrollwrap")) region.tabIndex = 0;
});

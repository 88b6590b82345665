// The offer to undo something ends after ten seconds, but not under somebody's hands.

const undoTime = 10_000;

function endUndo() {
  const offer = document.querySelector(".flash form");
  if (offer?.matches(":hover, :focus-within")) setTimeout(endUndo, 1000);
  else offer?.remove();
}
setTimeout(endUndo, undoTime);

// Runs before MLflow's own code, in the pages that `cgan ui` serves. CHOICES, TABLE, CHARTS and START are
// written above it by app.py.

// MLflow keeps a visitor's choices in the browser's storage. Where it finds nothing there, it finds ours;
// what the visitor chooses is stored, and counts from then on.
const stored = Storage.prototype.getItem;
Storage.prototype.getItem = function (key) {
  const found = stored.call(this, key);
  if (found !== null || this !== localStorage) return found;
  if (key in CHOICES) return JSON.stringify(CHOICES[key]);
  if (/-ExperimentPage-.*-ReactComponentState$/.test(key)) return JSON.stringify(TABLE);
  if (/-RunPage-.*-model-chartUIState$/.test(key)) return JSON.stringify(CHARTS);
  return null;
};

// The bare address leads to the runs.
if (START && ["", "#", "#/"].includes(location.hash)) location.replace(START);

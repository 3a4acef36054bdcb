"""`ds.otoscope`: what the neurons of a task respond to, by the names of its label columns.

Goal: thin methods over the pure functions of this room; they fetch what the store keeps and mask what may not
count.
Conventions: `ds` is one task as the reader shows it. Clips without a label, and clips that failed, count
nowhere. Only the label column is read at once, because the categories that have clips are an axis of the result;
everything else stays lazy.
"""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..store.labels import decode, encode
from ..store.schema import DIMENSIONS, OK, SHOWN_BESIDE
from . import compare, overlap, rates
from .conditions import clips_where
from .exemplars import exemplar_clips
from .kept import activity_of, line_of, means_of, variable_of
from .own_thresholds import neuron_thresholds
from .selection import rules, selectivity
from .selection.selection import Selection, selection_of, threshold_text

if TYPE_CHECKING:
    from .cards.card import Card, Cards
    from .crossed.layout import Layout
    from .null.resampling import Arrangement, Sample

NO_LABELS = (
    "expected at least one: `otoscope.open` shows those of a store, `otoscope label` adds some, and a selection of one "
    "clip keeps them as clip=[0]"
)
GIVEN = "class"  # the one labelling of a data set that holds probabilities made elsewhere instead of clips


@xr.register_dataset_accessor("otoscope")  # type: ignore[no-untyped-call]
class OtoscopeAccessor:
    """What the neurons of one task respond to.

    Methods that take a `selection` also take its fields by name: `ds.otoscope.aape("octave", reading="frame")`. They
    raise TypeError for a name that is not a field, ValueError for values that are not known or do not fit together.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def __repr__(self) -> str:
        """The label columns, and a line for each question: what it needs to be given, and its answer. Reads nothing."""
        labels = ", ".join(map(repr, self.labels)) or "none yet, add some with `otoscope label`"
        lines = [f"otoscope: questions about the label columns {labels}"]
        for name, method in inspect.getmembers(type(self), inspect.isfunction):
            if not name.startswith("_"):
                _, *given = inspect.signature(method).parameters.values()
                needed = [one.name for one in given if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
                lines.append(f"  .{name}({', '.join(needed)}): {inspect.getdoc(method)}".partition("\n")[0])
        return "\n".join(lines)

    @property
    def labels(self) -> list[str]:
        """Names of the label columns: coordinates of the clips, those that a user gave them included."""
        if self._given:
            return [GIVEN]
        others = {*DIMENSIONS, *SHOWN_BESIDE}
        return [str(name) for name, x in self._ds.coords.items() if x.dims == ("clip",) and name not in others]

    @property
    def counted(self) -> xr.DataArray:
        """bool (clip): the clip was extracted, so that it counts. Read at once."""
        there = self._read("status") == OK if "status" in self._ds else np.ones(self._ds.sizes["clip"], bool)
        return self._of_clips(there)

    def categories(self, label: str, selection: Selection | None = None) -> list[str]:
        """The categories of a label column that have clips; selection: as for `codes`."""
        if self._given:
            return [str(name) for name in self._given_probability(label)["category"].values]
        return list(self.codes(label, selection).attrs["categories"])

    def label(self, name: str) -> xr.DataArray:
        """Category of each clip: (clip) strings, "" where there is none or the clip does not count. Read at once."""
        codes = self.codes(name)
        return self._of_clips(decode(codes.values, codes.attrs["categories"]), name)

    def codes(self, name: str, selection: Selection | None = None) -> xr.DataArray:
        """Codes (clip) of the clips that count, -1 for all others; attrs: categories. Read at once.

        selection: only clips that its `where` admits, and that do not confirm, count; so it is in every method that
            takes one.
        """
        self._check_label(name)
        counted = self.counted.values
        if selection is not None and selection.where:
            counted = counted & clips_where(self._ds, selection.where)
        if selection is not None and selection.confirm:
            counted = counted & ~clips_where(self._ds, selection.confirm)
        column = np.where(counted, self._read(name).astype(object), np.nan)
        codes, categories = encode(column)
        return self._of_clips(codes, name).assign_attrs(categories=categories)

    def _check_label(self, name: str) -> None:
        if name not in self.labels:
            known = f"those that exist: {', '.join(self.labels)}" if self.labels else NO_LABELS
            raise LookupError(f"no label column {name!r} in this task; {known}")

    def _of_clips(self, values: np.ndarray, name: str | None = None) -> xr.DataArray:
        """Values (clip) by the clips' names; no other coordinate, for to copy those is to read them."""
        clips = {n: self._ds.variables[n] for n in ("clip",) if n in self._ds.coords}
        indexes = {n: index for n, index in self._ds.xindexes.items() if n == "clip"}
        return xr.DataArray(values, xr.Coordinates(clips, indexes), dims="clip", name=name)

    def _read(self, name: str) -> np.ndarray:
        """A variable (clip), and no other: coordinates of the same clips, such as other labels, stay as they are."""
        values: np.ndarray = self._ds[name].variable.compute(scheduler="synchronous").values
        return values

    def probability(self, label: str, selection: Selection | None = None, **changes: Any) -> xr.DataArray:
        """Activation probability (layer, neuron, category), in one of the readings.

        Without a selection, of what is stored: means above 0, as the published rules take it.

        reading: "clip" share of clips whose mean over frames is positive, "frame" share of positive frames, "any"
            share of clips with at least one positive frame.
        threshold: with "clip", on the mean over frames instead of 0; a number, one per neuron (layer, neuron), or one
            of the neuron's own by name, such as "q80". For the number 0 the stored bit is used, which was taken before
            the mean was rounded.
        Raises LookupError for an unknown label column or a variable that was not kept, ValueError for a threshold
        that is neither.
        """
        how = self._checked(selection, changes if selection else {"rule": "lape", **changes})
        if self._given:
            if how.rule == "contrast":
                self._check_clips()
            if how.reading != "clip" or how.line is not None:
                raise ValueError(
                    f"reading {how.reading!r}, threshold {threshold_text(how.line)} given for probabilities that were "
                    "made elsewhere; expected neither: they have the reading that they were made with"
                )
            return self._given_probability(label).assign_attrs(reading="given")
        codes = self.codes(label, how)
        line = line_of(self._ds, how, codes.values >= 0)
        if line is not None:
            p = rates.probability_above(means_of(self._ds), line, codes)
        else:
            active, frames = activity_of(self._ds, how)
            p = (
                rates.activation_probability(active, codes)
                if frames is None
                else rates.frame_probability(active, frames, codes)
            )
        return self._where_valid(p).assign_attrs(p.attrs, reading=how.reading)

    def aape(
        self, label: str, selection: Selection | None = None, *, normalised: bool = False, **changes: Any
    ) -> xr.DataArray:
        """AAPE (layer, neuron) in nats, NaN for a neuron that never fires; see `analysis.aape`."""
        return selectivity.aape(self.probability(label, selection, **changes), normalised)

    def class_specific(self, label: str, selection: Selection | None = None, **changes: Any) -> xr.Dataset:
        """Class-specific neurons, `member` (layer, neuron, category); see `analysis.class_specific`.

        By the rule "contrast" computed at once, with the tests of `tests` beside; see `analysis.contrast_specific`.
        """
        how = self._checked(selection, changes)
        if how.rule == "contrast":
            from .contrast.rank_tests import contrast_specific

            return contrast_specific(self.probability(label, how), self.tests(label, how), how)
        return rules.class_specific(self.probability(label, how), how)

    def tests(self, label: str, selection: Selection | None = None, **changes: Any) -> xr.Dataset:
        """Rank tests of the rule "contrast": z, auc, auc_low, auc_high, p, q (layer, neuron, category).

        Of its fields count `where`, `group`, `within`, `sign`, `correct`, `permutations` and `seed`. Computed at once;
        see `analysis.contrast_tests`.
        """
        from .contrast.rank_tests import contrast_tests

        how = self._checked(selection, changes)
        arrangement = self.arrangement(label, how)
        mean = variable_of(self._ds, "mean", "rank tests of the rule contrast")
        return contrast_tests(mean, arrangement, how, valid=self._ds.get("neuron_valid"))

    def cards(self, label: str, selection: Selection | None = None, **changes: Any) -> "Cards":
        """What the cards of one labelling have in common, in memory: `.card(layer, neuron)` then takes a moment each.

        By the rule contrast, which is the default, with the rank tests of all neurons. See
        `cards.labelling.LabellingStatistics`; `cards.labelling_statistics` adds what is to be said of the selection.
        """
        from .cards.card import Cards
        from .cards.labelling import fields_of, used_threshold

        how, codes = self._checked(selection, changes), self.codes(label, selection_of(selection, **changes))
        arrangement = self.arrangement(label, how, codes)
        threshold, fixed = used_threshold(self._ds, how, codes.values >= 0)
        found, task = self.class_specific(label, fixed).compute(), str(self._ds.attrs.get("task", ""))
        return Cards(**fields_of(self._ds, found, codes, arrangement, how, threshold, task, label))

    def card(self, label: str, layer: int, neuron: int, selection: Selection | None = None, **changes: Any) -> "Card":
        """The card of one neuron: its bars with intervals and what shuffled labels give, AAPE, AUC, its clips.

            ds.otoscope.card("octave", layer=2, neuron=17, rule="lape")

        Of several neurons ask `cards` once. Raises LookupError for a neuron that does not exist.
        """
        return self.cards(label, selection, **changes).card(layer, neuron)

    def common_neuron_ratio(
        self, label: str, other_label: str | None = None, selection: Selection | None = None, **changes: Any
    ) -> xr.DataArray:
        """Common neuron ratio (category, other_category) within a labelling, or between two of this task."""
        names = [label] if other_label is None else [label, other_label]
        return overlap.common_neuron_ratio(*self._members(names, selection, changes).values())

    def category_mean(self, label: str, selection: Selection | None = None, **changes: Any) -> xr.DataArray:
        """Mean activation over the clips of each category: float64 (layer, neuron, category).

        selection: of its fields, those that say which clips count.
        """
        codes = self.codes(label, self._checked(selection, changes))
        return self._where_valid(rates.category_mean(variable_of(self._ds, "mean", "means per category"), codes))

    def exemplars(
        self,
        layer: int | list[int],
        neuron: int | list[int],
        k: int = 10,
        lowest: bool = False,
        where: Sequence[str] = (),
    ) -> xr.Dataset:
        """The clips that drive a neuron most, or least: `clip` (name), `value`, `position` (in the plan), (rank).

        where: conditions that they satisfy, as of a selection. With a list of layers or neurons (layer, neuron, rank).
        Lazy; see `analysis.exemplar_clips`.
        """
        asked = {"layer": layer, "neuron": neuron}
        single = [dim for dim, at in asked.items() if isinstance(at, int | np.integer)]
        of = {dim: [at] if dim in single else at for dim, at in asked.items()}  # dimensions as they are stored
        means = variable_of(self._ds, "mean", "exemplars").sel(of)
        counted = self._of_clips(clips_where(self._ds, selection_of(where=where).where))
        found = exemplar_clips(means, counted, k, lowest)
        found = found.isel(dict.fromkeys(single, 0))
        # -1, where fewer clips count, finds the last one of each.
        own = {
            "clip": np.append(np.asarray(self._ds["clip"].values, object), ""),
            "position": np.append(self._ds["position"].values, -1),
        }
        return found.assign(
            {
                name: xr.apply_ufunc(
                    values.__getitem__, found["position"], dask="parallelized", output_dtypes=[values.dtype],
                    keep_attrs=False,
                )
                for name, values in own.items()
            }
        )  # fmt: skip

    def arrangement(self, label: str, how: Selection, codes: xr.DataArray | None = None) -> "Arrangement":
        """The labelled clips, or those of other codes (clip), and which may change places by `group` and `within`."""
        from .null.resampling import arrange_clips

        self._check_clips()
        return arrange_clips(
            self.codes(label, how) if codes is None else codes,
            groups=self.label(how.group) if how.group else None,
            within=[self.label(name) for name in how.within],
            seed=how.seed,
        )

    def neuron_thresholds(self, label: str, selection: Selection | None = None, **changes: Any) -> xr.DataArray:
        """Threshold of each neuron's own, as of threshold="q80": (layer, neuron); see `analysis.neuron_thresholds`.

        By the clips that `probability` counts. NaN for neurons that do not exist.
        Raises ValueError where the selection's threshold is not one of the neuron's own.
        """
        how, mean = self._checked(selection, changes), means_of(self._ds)
        if not isinstance(how.line, str):
            raise ValueError(
                f"the threshold is {threshold_text(how.line or 0.0)}; expected one of the neuron's own: q80, median or "
                "z1.5"
            )
        return self._where_valid(neuron_thresholds(mean, self.codes(label, how).values >= 0, how.line))

    def sample(
        self,
        label: str,
        selection: Selection | None = None,
        *,
        balanced: bool = False,
        found: xr.Dataset | None = None,
        **changes: Any,
    ) -> "Sample":
        """The labelled clips in memory, for `null.permutation_null` and `null.bootstrap`; see `take_sample`.

        selection: as for `probability`; of its fields also `group`, label column that clips share, such as speaker:
        they move together; `within`, label columns such as split, inside which clips are exchanged; and `seed`.
        balanced: cut every category down to the size of the smallest; found: by the rule contrast the selection, of
        `class_specific`, if it is there already.
        """
        from .null.resampling import take_sample  # machine code: who only opens a store never waits for it

        how = self._checked(selection, changes)
        self._check_clips()
        if balanced and how.rule == "contrast":
            raise ValueError(
                "balanced was given with the rule contrast, whose AUC does not depend on sizes of categories; expected "
                "it with the rules lape and paper: leave it out"
            )
        codes = self.codes(label, how)
        line = line_of(self._ds, how, codes.values >= 0)
        if line is None:
            active, frames = activity_of(self._ds, how)
        else:  # a lazy one is computed at once, for it would be for each block
            fixed = line.compute() if isinstance(line, xr.DataArray) else line
            active, frames = rates.above(means_of(self._ds), fixed), None
        sample = take_sample(
            active,
            codes,
            frame_count=frames,
            groups=self.label(how.group) if how.group else None,
            within=[self.label(name) for name in how.within],
            balanced=balanced,
            valid=self._ds.get("neuron_valid"),
            seed=how.seed,
        )
        if how.rule != "contrast":
            return sample
        from .contrast.rank_sample import take_ranks

        found = (self.class_specific(label, how) if found is None else found).compute()
        mean = variable_of(self._ds, "mean", "ranks")
        exists = sample.neurons.transpose("layer", "neuron").values
        return replace(sample, ranked=take_ranks(mean, sample.clips, sample.codes, exists, found))

    def crossed_layout(
        self,
        audio_class: str = "audio_class",
        text_class: str = "text_class",
        *,
        audio: str = "audio",
        wording: str = "wording",
        replicate: str | None = None,
        where: Sequence[str] = (),
    ) -> "Layout":
        """Which clip is which sound with which text, by these label columns; see `crossed.layout.crossed_layout`.

        Failed clips are looked for among those shown (`otoscope.open(url, failed="keep")`); where they are hidden, a
        pair that failed is one that is not there.
        """
        from .crossed.layout import crossed_layout

        self._check_clips()
        names = [audio_class, text_class, audio, wording]
        if replicate or "replicate" in self.labels:
            names.append(replicate or "replicate")
        there = clips_where(self._ds.drop_vars("status", errors="ignore"), where)
        try:
            a, t, sound, text, *number = (self._strings(name, there) for name in names)
            return crossed_layout(a, t, sound, text, number[0] if number else None, self.counted)
        except ValueError as error:
            if "status" in self._ds or not self._ds.attrs.get("n_failed"):
                raise
            hidden = f"{self._ds.attrs['n_failed']} clips of this task failed and are hidden"
            raise ValueError(f'{error}; or, as {hidden}, open the store with failed="keep"') from error

    def _strings(self, name: str, there: np.ndarray) -> xr.DataArray:
        """A label column as strings (clip), "" where there is none, and of clips that are not `there`."""
        self._check_label(name)
        column = self._read(name)
        known = there & ~np.asarray(xr.DataArray(column).isnull())
        return self._of_clips(np.array([str(x) if of else "" for x, of in zip(column, known, strict=True)], object))

    def grounding(
        self,
        audio_class: str = "audio_class",
        text_class: str = "text_class",
        selection: Selection | None = None,
        *,
        aape: bool = False,
        blind: str | None = None,
        audio: str = "audio",
        wording: str = "wording",
        replicate: str | None = None,
        **changes: Any,
    ) -> xr.Dataset:
        """Whether each neuron responds to the sound or to the words: GC, with its interval; see `analysis.grounding`.

        Of a crossed corpus, by label columns: the sound's and the text's category, which sound it is (`audio`), which
        `wording`, and the number of the sound (`replicate`, by default the column of this name, if there is one).
        selection: of its fields count `where` and `seed`; with aape also `reading`, `threshold` (without a selection 0)
            and `permutations`.
        aape: also by AAPE: `aape_excess_A`, `aape_excess_T` and `gc_aape`; see `crossed.aape.aape_excess`. At once.
        Lazy but for the columns. Raises ValueError for clips that are not crossed, and as `codes` does.
        """
        from .crossed.coefficient import grounding

        how = self._checked(selection, changes if selection else {"rule": "lape", **changes})
        layout = self.crossed_layout(
            audio_class, text_class, audio=audio, wording=wording, replicate=replicate, where=how.where
        )
        mean, valid = variable_of(self._ds, "mean", "effects of sound and text"), self._ds.get("neuron_valid")
        found = grounding(mean, layout, valid=valid, blind=blind, seed=how.seed)
        if not aape:
            return found
        from .crossed.aape import with_aape

        return with_aape(found, self._ds, layout, how)

    def _check_clips(self) -> None:
        if self._given:
            raise LookupError(
                "probabilities made elsewhere have no clips to exchange; expected a store extracted here, or the rule "
                "lape or paper"
            )

    def serving(self, *labels: str, selection: Selection | None = None, **changes: Any) -> xr.Dataset:
        """Which neurons serve which labelling of this task, and how many; see `analysis.serving`."""
        return compare.serving(self._members(labels, selection, changes))

    def _members(
        self, labels: Sequence[str], selection: Selection | None, changes: dict[str, Any]
    ) -> dict[str, xr.DataArray]:
        return {name: self.class_specific(name, selection, **changes)["member"] for name in labels}

    def _checked(self, selection: Selection | None, changes: dict[str, Any]) -> Selection:
        how = selection_of(selection, **changes)
        if how.clips == "train":
            raise ValueError("clips 'train' given for a data set; expected 'all': take its clips by `where`")
        if self._given and (conditions := (*how.where, *how.confirm)):
            clips_where(self._ds, conditions)
        return how

    @property
    def _given(self) -> bool:
        return "probability" in self._ds

    def _given_probability(self, label: str) -> xr.DataArray:
        if label != GIVEN:
            raise LookupError(f"no labelling {label!r} in probabilities made elsewhere; they have one, {GIVEN!r}")
        return self._ds["probability"]

    def _where_valid(self, values: xr.DataArray) -> xr.DataArray:
        return values.where(self._ds["neuron_valid"]) if "neuron_valid" in self._ds else values

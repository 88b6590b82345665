package ops

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/overlay/cert"
)

// How long records of the audit stay, and which devices report introductions.

const (
	// minAuditKeep is the age from which on a record may be removed, even by the owner, so that
	// what was done today can still be read tomorrow.
	minAuditKeep = 24 * time.Hour
	maxAuditKeep = 100 * 366 * 24 * time.Hour
	// trimBatch is how many records, and about how many introductions, one transaction
	// removes. It is bounded because other writes wait for that transaction.
	trimBatch = 5000
	// maxIntroductions bounds how many introductions of all devices are stored, of about 200
	// bytes each. Once a day the earliest ones beyond that number are removed.
	maxIntroductions = 1_000_000
	// maxReporting bounds the number of tags whose devices report introductions.
	maxReporting = 64
)

// AuditSettings are the owner's settings for the audit.
type AuditSettings struct {
	KeepSeconds int64 `json:"keep_seconds"` // how long records and introductions stay, 0 for ever
	// Introductions are the tags whose devices report their introductions.
	Introductions []string `json:"introductions"`
	// Revision is for EditAudit.Match. It is not stored.
	Revision string `json:"revision,omitempty"`
}

// revised returns the settings with Revision set: a hash, so it changes with every change.
func (a AuditSettings) revised() AuditSettings {
	a.Revision = revisionOfParts(strconv.FormatInt(a.KeepSeconds, 10), store.JoinTags(a.Introductions))
	return a
}

func readAuditSettings(r *store.Reader, id cert.NetworkID) (*AuditSettings, error) {
	text, err := r.AuditSettings(id)
	if err != nil {
		return nil, err
	}
	a := AuditSettings{Introductions: []string{}}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			return nil, fmt.Errorf("read audit settings: %w", err)
		}
	}
	return &a, nil
}

// AuditSettings returns the settings of the audit.
func (s *Service) AuditSettings(a Actor) (AuditSettings, error) {
	if err := opAuditRead.readsAll(a); err != nil {
		return AuditSettings{}, err
	}
	set := *s.auditing.Load()
	set.Introductions = slices.Clone(set.Introductions)
	return set.revised(), nil
}

// reportsIntroductions reports whether devices with these tags report introductions.
func (s *Service) reportsIntroductions(tags []string) bool {
	set := s.auditing.Load().Introductions
	return slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(set, t) })
}

// EditAudit changes the settings of the audit. Fields that are not set change nothing.
type EditAudit struct {
	Match []string `json:"-"` // AuditSettings.Revision must be one of these; nil for any
	// KeepSeconds is how long records stay: 0 for ever, else a day to a hundred years.
	KeepSeconds *int64 `json:"keep_seconds,omitempty"`
	// Report are tags whose devices begin to report introductions, NoReport are tags
	// whose devices stop. "tag:" in front may be left out.
	Report   []string `json:"report,omitempty"`
	NoReport []string `json:"no_report,omitempty"`
}

func (EditAudit) operation() *Operation { return opAuditConfigure }

func (c EditAudit) run(tx *Tx) (next AuditSettings, err error) {
	if err := tx.may(target{kind: "audit"}); err != nil {
		return next, err
	}
	old, err := readAuditSettings(&tx.Reader, tx.s.network)
	if err != nil {
		return next, err
	}
	if err := matches(c.Match, old.revised().Revision); err != nil {
		return next, fmt.Errorf("audit: %w", err)
	}
	next = *old
	if c.KeepSeconds != nil {
		least, most := int64(minAuditKeep/time.Second), int64(maxAuditKeep/time.Second)
		if next.KeepSeconds = *c.KeepSeconds; next.KeepSeconds != 0 && (next.KeepSeconds < least || next.KeepSeconds > most) {
			return next, Invalid("the audit can keep records for a day to a hundred years, or for ever")
		}
	}
	report, err := checkTags(c.Report)
	if err != nil {
		return next, err
	}
	noReport, err := checkTags(c.NoReport)
	if err != nil {
		return next, err
	}
	tags := append(append([]string{}, old.Introductions...), report...)
	tags = slices.DeleteFunc(tags, func(t string) bool { return slices.Contains(noReport, t) })
	slices.Sort(tags)
	if next.Introductions = slices.Compact(tags); len(next.Introductions) > maxReporting {
		return next, Invalid("devices of %d tags would report introductions, at most %d", len(next.Introductions), maxReporting)
	}
	same := slices.Equal(next.Introductions, old.Introductions)
	if same && next.KeepSeconds == old.KeepSeconds {
		return next.revised(), nil
	}
	text, err := json.Marshal(next)
	if err != nil {
		return next, err
	}
	if err := tx.SetAuditSettings(tx.s.network, string(text)); err != nil {
		return next, err
	}
	var n uint64
	if same {
		n, err = tx.Bump(tx.s.network)
	} else if n, err = tx.BumpConfig(tx.s.network); err == nil { // devices find it in their config
		tx.changed(n, store.ConfigChanged, "")
	}
	if err != nil {
		return next, err
	}
	tx.changed(n, store.AuditChanged, "")
	tx.did(target{kind: "audit"}, old, next)
	return next.revised(), nil
}

// AuditTrimmed says how much was removed from the audit.
type AuditTrimmed struct {
	First         uint64 `json:"first"` // numbers of the first and last record that were removed; both 0 for none
	Last          uint64 `json:"last"`
	Introductions int64  `json:"introductions"` // how many introductions were removed
}

// TrimAudit removes the records and the introductions from before a time. It signs a
// checkpoint, from which the remaining records can still be verified. It refuses to remove
// a record that was changed since it was written. One command removes one batch, so that other
// writes do not wait long; Service.TrimAudit repeats it until nothing more is removed.
type TrimAudit struct {
	Before time.Time `json:"before"` // at least a day ago
	// introductions says to remove only introductions, because there are too many.
	introductions bool
	more          bool // another batch of a trim that has a record already
}

func (TrimAudit) operation() *Operation { return opAuditTrim }

// trimmedAudit is the value of a trim's record.
type trimmedAudit struct {
	Before time.Time `json:"before"`
	AuditTrimmed
}

func (c TrimAudit) run(tx *Tx) (gone AuditTrimmed, err error) {
	network := tx.s.network
	if err := tx.may(target{kind: "audit"}); err != nil {
		return gone, err
	}
	if tx.now.Sub(c.Before) < minAuditKeep && !c.introductions {
		return gone, Invalid("records of the last 24 hours cannot be removed: give %s or an earlier time", tx.now.Add(-minAuditKeep).UTC().Format("2006-01-02 15:04 MST"))
	}
	cut := audit.Checkpoint{}
	if !c.introductions {
		cut, err = tx.AuditCut(network, c.Before, trimBatch)
	}
	var wrong *audit.Fault
	switch {
	case errors.As(err, &wrong):
		return gone, Invalid("%v; nothing was removed; first find out what happened (weft-server audit verify)", wrong)
	case err != nil && !isNotFound(err):
		return gone, err
	case err == nil && cut.Seq > 0:
		if gone, err = tx.trim(cut); err != nil {
			return gone, err
		}
	}
	if gone.Introductions, err = tx.TrimIntroductions(network, c.Before, trimBatch); err != nil {
		return gone, err
	}
	// If somebody asked for the trim it is recorded even if there was nothing to remove.
	if gone != (AuditTrimmed{}) || tx.actor.Via != ViaSystem && !c.more {
		tx.did(target{kind: "audit"}, nil, trimmedAudit{c.Before.UTC().Truncate(time.Second), gone})
	}
	return gone, nil
}

// trim signs a checkpoint and removes the records up to it.
func (tx *Tx) trim(cut audit.Checkpoint) (gone AuditTrimmed, err error) {
	before, err := tx.AuditCheckpoint(cut.Network)
	if err != nil && !isNotFound(err) {
		return gone, err
	}
	if cut, err = cut.Sign(tx.s.auth.Network.Key, tx.now); err != nil {
		return gone, err
	}
	return AuditTrimmed{First: before.Seq + 1, Last: cut.Seq}, tx.Tx.TrimAudit(cut)
}

// TrimAudit removes all records and introductions from before a time, in batches. If a batch
// fails, the earlier batches stay removed and are counted in the result.
func (s *Service) TrimAudit(ctx context.Context, a Actor, c TrimAudit) (all AuditTrimmed, err error) {
	for {
		gone, err := Do(ctx, s, a, c)
		if err != nil || gone == (AuditTrimmed{}) {
			return all, err
		}
		c.more = true
		all.Introductions += gone.Introductions
		if gone.Last > 0 {
			all.Last = gone.Last
			if all.First == 0 {
				all.First = gone.First
			}
		}
	}
}

const (
	keepEvery = 24 * time.Hour
	// A clock that jumps ahead makes all records look old. So nothing is removed within
	// keepSteady of the start and of each jump of the clock by more than keepJump: by then the
	// clock is likely to have been set right.
	keepSteady = time.Hour
	keepJump   = 10 * time.Minute
)

// keeping decides when old records are removed. Only the goroutine of upkeep uses it.
type keeping struct {
	last   time.Time // when due was last called
	steady time.Time // since when the clock has not jumped
	next   time.Time // when records are removed next
}

// due reports whether records have to be removed now. It is called every minute.
func (k *keeping) due(now time.Time) bool {
	if k.last.IsZero() || now.Sub(k.last).Abs() > keepJump {
		k.steady = now
	}
	k.last = now
	if now.Sub(k.steady) < keepSteady || now.Before(k.next) && k.next.Sub(now) <= keepEvery {
		return false
	}
	k.next = now.Add(keepEvery)
	return true
}

// keepAudit removes, once a day, the records that are older than KeepSeconds, and the earliest
// introductions if there are too many.
func (s *Service) keepAudit(ctx context.Context) error {
	now := s.now()
	if !s.keeping.due(now) {
		return nil
	}
	if keep := s.auditing.Load().KeepSeconds; keep > 0 {
		if _, err := s.TrimAudit(ctx, System(), TrimAudit{Before: now.Add(-time.Duration(keep) * time.Second)}); err != nil {
			return fmt.Errorf("remove old records of the audit: %w", err)
		}
	}
	var before time.Time
	err := s.store.Read(ctx, func(r *store.Reader) (err error) {
		before, err = r.IntroductionsBound(s.network, maxIntroductions)
		return err
	})
	if err == nil && !before.IsZero() {
		_, err = s.TrimAudit(ctx, System(), TrimAudit{Before: before, introductions: true})
	}
	if err != nil {
		return fmt.Errorf("remove the earliest introductions: %w", err)
	}
	return nil
}

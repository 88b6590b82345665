package ops

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"weft/coord/audit"
	"weft/coord/store"
	"weft/coord/webhook"
	"weft/overlay/cert"
)

// outgoing is an event, and the webhook's cursors after it.
type outgoing struct {
	webhook.Event
	at              time.Time
	audit, presence uint64
}

// hookPart are the next events of a webhook.
type hookPart struct {
	events          []outgoing // in the order in which to send them
	audit, presence uint64     // the cursors after all of them
	more            bool       // there may be more events after these
	missed          uint64     // lost events before these
	lostAudit       uint64     // the audit cursor after the lost events, 0 for none
	lostPresence    uint64     // the presence cursor after the lost events, 0 for none
}

// hookEvents reads the next events of a webhook.
func (s *Service) hookEvents(w store.Webhook) (p hookPart, err error) {
	oldest := s.now().Add(-hookMaxAge)
	var records, moves []outgoing
	var recordsEnd, movesEnd uint64 // cursors after everything that was read
	moreRecords, moreMoves := false, false
	err = s.store.Read(context.Background(), func(r *store.Reader) (err error) {
		if records, recordsEnd, moreRecords, err = s.hookRecords(r, w, oldest, &p); err != nil {
			return err
		}
		moves, movesEnd, moreMoves, err = s.hookMoves(r, w, oldest, &p)
		return err
	})
	if err != nil {
		return hookPart{}, err
	}
	// Merge both by time. If one list is empty but there is more of its kind to read, stop: the
	// next event of that kind may be earlier than those of the other list.
	p.audit, p.presence = w.Audit, w.Presence
	for len(p.events) < hookPage {
		var e outgoing
		switch {
		case len(records) == 0 && moreRecords, len(moves) == 0 && moreMoves, len(records) == 0 && len(moves) == 0:
		case len(moves) == 0 || len(records) > 0 && !moves[0].at.Before(records[0].at):
			e, records = records[0], records[1:]
			p.audit = e.audit
		default:
			e, moves = moves[0], moves[1:]
			p.presence = e.presence
		}
		if e.ID == "" {
			break
		}
		e.audit, e.presence = p.audit, p.presence
		p.events = append(p.events, e)
	}
	if len(records) == 0 {
		p.audit = recordsEnd
	}
	if len(moves) == 0 {
		p.presence = movesEnd
	}
	p.more = moreRecords || moreMoves || len(records) > 0 || len(moves) > 0
	return p, nil
}

// hookRecords reads the audit after a webhook's cursor.
func (s *Service) hookRecords(r *store.Reader, w store.Webhook, oldest time.Time, p *hookPart) (events []outgoing, end uint64, more bool, err error) {
	enough := errors.New("enough")
	seen, last := 0, w.Audit
	var found []audit.Record
	var hashes []audit.Hash
	err = r.EachAudit(s.network, store.AuditFilter{Oldest: true, Cursor: w.Audit, Limit: hookScan}, func(rec audit.Record, h audit.Hash) error {
		if gone := rec.Seq - last - 1; gone > 0 && seen == 0 { // records were removed before they could be sent
			p.missed, p.lostAudit = p.missed+gone, rec.Seq-1
		}
		seen, last = seen+1, rec.Seq
		switch {
		case !webhook.Matches(w.Events, webhook.NameOf(rec.Op, rec.Refused != "")), rec.Op == opHookTest.Name && rec.ID == w.ID: // a test is sent by itself
		default:
			found, hashes = append(found, rec), append(hashes, h)
		}
		if len(found) == hookPage {
			return enough
		}
		return nil
	})
	if more = errors.Is(err, enough) || seen == hookScan; err != nil && !errors.Is(err, enough) {
		return nil, 0, false, err
	}
	if end = last; seen == 0 {
		// There is no record after the cursor; all that there were may have been removed.
		if c, err := r.AuditCheckpoint(s.network); err == nil && c.Seq > w.Audit {
			p.missed += c.Seq - w.Audit
			p.lostAudit, end = c.Seq, c.Seq
		} else if err != nil && !isNotFound(err) {
			return nil, 0, false, err
		}
	}
	for i, rec := range found {
		if len(w.Tags) > 0 && !carries(w.Tags, s.recordTags(r, rec)) {
			continue
		}
		if rec.At.Before(oldest) && len(events) == 0 {
			p.missed, p.lostAudit = p.missed+1, rec.Seq
			continue
		}
		events = append(events, outgoing{Event: webhook.OfRecord(s.network.String(), rec, hashes[i]), at: rec.At, audit: rec.Seq})
	}
	return events, end, more, nil
}

// hookMoves reads the presence events after a webhook's cursor.
func (s *Service) hookMoves(r *store.Reader, w store.Webhook, oldest time.Time, p *hookPart) (events []outgoing, end uint64, more bool, err error) {
	if end = w.Presence; !wantsPresence(w) {
		return nil, end, false, nil
	}
	list, gone, err := r.PresenceEvents(s.network, w.Presence, hookPage)
	if err != nil {
		return nil, 0, false, err
	}
	if gone > 0 {
		p.missed, p.lostPresence = p.missed+gone, list[0].N-1
	}
	for _, m := range list {
		end = m.N
		e := webhook.OfPresence(s.network.String(), m.ID, m.At, webhook.Target{Kind: "device", ID: m.Node.String(), Name: m.Name}, m.Online)
		if !webhook.Matches(w.Events, e.Op) || len(w.Tags) > 0 && !carries(w.Tags, m.Tags) {
			continue
		}
		if m.At.Before(oldest) && len(events) == 0 {
			p.missed, p.lostPresence = p.missed+1, m.N
			continue
		}
		events = append(events, outgoing{Event: e, at: m.At, presence: m.N})
	}
	return events, end, len(list) == hookPage, nil
}

func carries(wanted, tags []string) bool {
	return slices.ContainsFunc(tags, func(t string) bool { return slices.Contains(wanted, t) })
}

// recordTags returns the tags of the device or key that a record is about: its present tags, or
// those in the record if it was deleted.
func (s *Service) recordTags(r *store.Reader, rec audit.Record) []string {
	switch rec.Kind {
	case "device":
		if id, err := cert.ParseNodeID(rec.ID); err == nil {
			if _, ok := s.index.has(id); ok {
				return s.index.targetOf(id).tags
			}
		}
	case "key":
		if k, err := r.Key(s.network, rec.ID); err == nil {
			return k.Tags
		}
	}
	for _, b := range []json.RawMessage{rec.After, rec.Before} {
		var v struct {
			Tags []string `json:"tags"`
		}
		if json.Unmarshal(b, &v) == nil && len(v.Tags) > 0 {
			return v.Tags
		}
	}
	return nil
}

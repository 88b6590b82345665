package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"weft/overlay/cert"
)

// Webhook is a receiver of events: its settings and its state.
type Webhook struct {
	ID       string         `json:"id"`
	URL      string         `json:"url"`
	Note     string         `json:"note"`
	Events   []string       `json:"events"`        // patterns; not nil
	Tags     []string       `json:"tags"`          // only events about things that carry one of these tags; not nil
	Allow    []netip.Prefix `json:"allow_targets"` // targets that are allowed though they would be refused; not nil
	Enabled  bool           `json:"enabled"`
	Created  time.Time      `json:"created"`
	Revision uint64         `json:"-"` // changes with each edit

	Salt     []byte     `json:"-"` // from which the secret is derived; OldSalt is for the secret before
	OldSalt  []byte     `json:"-"`
	OldUntil *time.Time `json:"old_secret_until"` // until when requests are signed with both; nil for one secret

	WebhookState
}

// WebhookState holds the cursors and the attempts of a webhook.
type WebhookState struct {
	Audit    uint64 `json:"-"` // last audit record that was handled
	Presence uint64 `json:"-"` // last presence event that was handled

	Attempts int        `json:"attempts"`      // failed attempts to send the next event
	Failing  *time.Time `json:"failing_since"` // time of the first of these attempts
	Next     *time.Time `json:"next_attempt"`  // nil: as soon as there is something to send
	Paused   *time.Time `json:"paused"`        // when it was paused: nothing is sent until it is enabled again; nil: it is not

	Delivered uint64      `json:"delivered"`     // number of events that the receiver accepted
	Last      *time.Time  `json:"last_delivery"` // nil: never
	LastError string      `json:"last_error"`    // of the last attempt that failed, "" for none
	Missed    uint64      `json:"missed"`        // events that were removed, or became too old, before they could be sent
	MissedAt  *time.Time  `json:"last_missed"`
	Recent    []Delivered `json:"recent"` // the last attempts, the latest first; not nil
}

// Delivered is one attempt to send an event.
type Delivered struct {
	Event  string    `json:"event"` // its id
	Op     string    `json:"op"`
	At     time.Time `json:"at"`
	TookMS int64     `json:"took_ms"`
	Status int       `json:"status"` // of HTTP, 0 for none
	Error  string    `json:"error"`  // "" for none: the receiver accepted the event
}

const webhookColumns = `SELECT webhook_id, revision, url, note, events, tags, allow, enabled, salt, old_salt, old_until, created_at,
	audit_seq, presence_n, attempts, failing_at, next_at, paused_at, delivered, delivered_at, last_error, missed, missed_at, recent
	FROM webhooks WHERE network_id=$1 `

func scanWebhook(scan func(...any) error) (w Webhook, err error) {
	var events, tags, allow, recent string
	err = scan(&w.ID, &w.Revision, &w.URL, &w.Note, &events, &tags, &allow, &w.Enabled, &w.Salt, &w.OldSalt, maybeTime{&w.OldUntil}, stored{&w.Created},
		&w.Audit, &w.Presence, &w.Attempts, maybeTime{&w.Failing}, maybeTime{&w.Next}, maybeTime{&w.Paused}, &w.Delivered, maybeTime{&w.Last}, &w.LastError,
		&w.Missed, maybeTime{&w.MissedAt}, &recent)
	if err != nil {
		return w, err
	}
	w.Events, w.Tags, w.Allow, w.Recent = SplitTags(events), SplitTags(tags), []netip.Prefix{}, []Delivered{}
	for _, s := range SplitTags(allow) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return w, fmt.Errorf("webhook %s: %w", w.ID, err)
		}
		w.Allow = append(w.Allow, p)
	}
	if err := json.Unmarshal([]byte(recent), &w.Recent); err != nil {
		return w, fmt.Errorf("webhook %s: %w", w.ID, err)
	}
	return w, nil
}

// Webhooks lists the webhooks, the oldest first.
func (r *Reader) Webhooks(id cert.NetworkID) (list []Webhook, err error) {
	err = r.each(webhookColumns+`ORDER BY created_at, webhook_id`, []any{id[:]}, func(scan func(...any) error) error {
		w, err := scanWebhook(scan)
		list = append(list, w)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	return list, nil
}

// Webhook finds a webhook by its id.
func (r *Reader) Webhook(id cert.NetworkID, webhook string) (w Webhook, err error) {
	err = ErrNotFound
	if e := r.each(webhookColumns+`AND webhook_id=$2`, []any{id[:], webhook}, func(scan func(...any) error) error {
		w, err = scanWebhook(scan)
		return err
	}); e != nil {
		err = e
	}
	return w, err
}

// CreateWebhook stores a new webhook.
func (tx *Tx) CreateWebhook(id cert.NetworkID, w Webhook) error {
	err := tx.exec(`INSERT INTO webhooks (network_id, webhook_id, revision, url, note, events, tags, allow, enabled, salt, created_at, audit_seq, presence_n)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)`,
		id[:], w.ID, w.Revision, w.URL, w.Note, strings.Join(w.Events, ","), JoinTags(w.Tags), joinAllow(w.Allow), w.Enabled, w.Salt, w.Created.Unix(), w.Audit, w.Presence)
	if err != nil {
		return fmt.Errorf("create webhook: %w", err)
	}
	return nil
}

func joinAllow(allow []netip.Prefix) string {
	words := make([]string, len(allow))
	for i, p := range allow {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}

// EditWebhook stores the settings and the state of a webhook.
func (tx *Tx) EditWebhook(id cert.NetworkID, w Webhook) error {
	var oldSalt any
	if len(w.OldSalt) > 0 {
		oldSalt = w.OldSalt
	}
	err := tx.changed(`UPDATE webhooks SET revision=$3, url=$4, note=$5, events=$6, tags=$7, allow=$8, enabled=$9, salt=$10, old_salt=$11, old_until=$12 WHERE network_id=$1 AND webhook_id=$2`,
		id[:], w.ID, w.Revision, w.URL, w.Note, strings.Join(w.Events, ","), JoinTags(w.Tags), joinAllow(w.Allow), w.Enabled, w.Salt, oldSalt, orNil(w.OldUntil))
	if err == nil {
		err = tx.SetWebhookState(id, w)
	}
	if err != nil {
		return fmt.Errorf("edit webhook: %w", err)
	}
	return nil
}

// SetWebhookState stores the state of a webhook. It returns ErrNotFound if the webhook was
// edited or deleted since w was read.
func (tx *Tx) SetWebhookState(id cert.NetworkID, w Webhook) error {
	recent, err := json.Marshal(append([]Delivered{}, w.Recent...))
	if err != nil {
		return err
	}
	return tx.changed(`UPDATE webhooks SET audit_seq=$4, presence_n=$5, attempts=$6, failing_at=$7, next_at=$8, paused_at=$9, delivered=$10, delivered_at=$11, last_error=$12,
		missed=$13, missed_at=$14, recent=$15 WHERE network_id=$1 AND webhook_id=$2 AND revision=$3`,
		id[:], w.ID, w.Revision, w.Audit, w.Presence, w.Attempts, orNil(w.Failing), orNil(w.Next), orNil(w.Paused), w.Delivered, orNil(w.Last), w.LastError,
		w.Missed, orNil(w.MissedAt), string(recent))
}

// orNil stores nil as NULL.
func orNil(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.Unix()
}

// DeleteWebhook deletes a webhook.
func (tx *Tx) DeleteWebhook(id cert.NetworkID, webhook string) error {
	return tx.changed(`DELETE FROM webhooks WHERE network_id=$1 AND webhook_id=$2`, id[:], webhook)
}

// PresenceEvent says that a device went online or offline.
type PresenceEvent struct {
	N      uint64
	ID     string // unique
	At     time.Time
	Node   cert.NodeID
	Name   string
	Tags   []string
	Online bool
}

// presenceKeep bounds the stored events: about two megabytes.
const presenceKeep = 10_000

// PresenceEvents returns at most limit events after number n, in order, and how many events
// between n and the first one were deleted already.
func (r *Reader) PresenceEvents(id cert.NetworkID, n uint64, limit int) (events []PresenceEvent, gone uint64, err error) {
	err = r.each(`SELECT n, event_id, ms_at, node_id, name, tags, online FROM presence_events WHERE network_id=$1 AND n > $2 ORDER BY n LIMIT $3`, []any{id[:], n, limit},
		func(scan func(...any) error) error {
			var e PresenceEvent
			var at int64
			var node []byte
			var tags string
			err := scan(&e.N, &e.ID, &at, &node, &e.Name, &tags, &e.Online)
			copy(e.Node[:], node)
			e.At, e.Tags = time.UnixMilli(at).UTC(), SplitTags(tags)
			events = append(events, e)
			return err
		})
	if err != nil {
		return nil, 0, fmt.Errorf("read presence events: %w", err)
	}
	if len(events) > 0 {
		gone = events[0].N - n - 1
	}
	return events, gone, nil
}

// LastPresence returns the number of the last presence event, 0 for none.
func (r *Reader) LastPresence(id cert.NetworkID) (n uint64, err error) {
	err = r.row(`SELECT COALESCE(MAX(n), 0) FROM presence_events WHERE network_id=$1`, []any{id[:]}, &n)
	return n, err
}

// PresenceKnown reports whether SetToldOnline was called for all devices that are online.
func (r *Reader) PresenceKnown(id cert.NetworkID) (known bool, err error) {
	err = r.row(`SELECT presence_known FROM networks WHERE network_id=$1`, []any{id[:]}, &known)
	return known, err
}

// ToldOnline returns the devices that are online according to their last event.
func (r *Reader) ToldOnline(id cert.NetworkID) (nodes []cert.NodeID, err error) {
	err = r.each(`SELECT node_id FROM presence_told WHERE network_id=$1`, []any{id[:]}, func(scan func(...any) error) error {
		var b []byte
		err := scan(&b)
		var node cert.NodeID
		copy(node[:], b)
		nodes = append(nodes, node)
		return err
	})
	return nodes, err
}

// IsToldOnline reports whether a device is online according to its last event.
func (r *Reader) IsToldOnline(id cert.NetworkID, node cert.NodeID) (online bool, err error) {
	err = r.row(`SELECT EXISTS (SELECT 1 FROM presence_told WHERE network_id=$1 AND node_id=$2)`, []any{id[:], node[:]}, &online)
	return online, err
}

// SetToldOnline stores whether a device that exists is online, without an event.
func (tx *Tx) SetToldOnline(id cert.NetworkID, node cert.NodeID, online bool) error {
	if online {
		return tx.exec(`INSERT INTO presence_told (network_id, node_id) VALUES ($1,$2) ON CONFLICT DO NOTHING`, id[:], node[:])
	}
	return tx.exec(`DELETE FROM presence_told WHERE network_id=$1 AND node_id=$2`, id[:], node[:])
}

// SetPresenceKnown stores that SetToldOnline was called for all devices that are online.
func (tx *Tx) SetPresenceKnown(id cert.NetworkID) error {
	return tx.exec(`UPDATE networks SET presence_known=1 WHERE network_id=$1`, id[:])
}

// ForgetPresence deletes the presence state and events: no webhook wants them, or they are
// from before a restore.
func (tx *Tx) ForgetPresence(id cert.NetworkID) error {
	for _, q := range []string{
		`UPDATE networks SET presence_known=0 WHERE network_id=$1`,
		`DELETE FROM presence_told WHERE network_id=$1`,
		`DELETE FROM presence_events WHERE network_id=$1`,
		// The numbers begin anew.
		`UPDATE webhooks SET presence_n=0 WHERE network_id=$1`,
	} {
		if err := tx.exec(q, id[:]); err != nil {
			return fmt.Errorf("forget presence: %w", err)
		}
	}
	return nil
}

// AddPresence appends events, sets their numbers, and deletes the oldest beyond presenceKeep.
func (tx *Tx) AddPresence(id cert.NetworkID, events []PresenceEvent) error {
	n, err := tx.LastPresence(id)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		n++
		e.N = n
		err := tx.exec(`INSERT INTO presence_events (network_id, n, event_id, ms_at, node_id, name, tags, online) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)`,
			id[:], n, e.ID, max(1, e.At.UnixMilli()), e.Node[:], e.Name, JoinTags(e.Tags), e.Online)
		if err == nil {
			err = tx.SetToldOnline(id, e.Node, e.Online)
		}
		if err != nil {
			return fmt.Errorf("add presence event: %w", err)
		}
	}
	if n <= presenceKeep {
		return nil
	}
	return tx.exec(`DELETE FROM presence_events WHERE network_id=$1 AND n <= $2`, id[:], n-presenceKeep)
}

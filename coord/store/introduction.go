package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"weft/overlay/cert"
)

// Introductions that devices report. The rows are claims of the devices, and not part of the
// audit.

// Introduction is the report of one device about one hour, one peer and one direction.
type Introduction struct {
	Device     cert.NodeID `json:"device"`
	DeviceName string      `json:"device_name"` // when the server received the report
	Peer       cert.NodeID `json:"peer"`        // all zero for several peers, of which only the number is known
	Name       string      `json:"name"`        // of the peer at that time, as the device reports
	User       string      `json:"user"`        // owner of the peer, as the device reports
	Inbound    bool        `json:"inbound"`     // the peer introduced itself, else the device did
	Count      int64       `json:"count"`       // at least 1
	First      time.Time   `json:"first"`
	Last       time.Time   `json:"last"`
	Paths      string      `json:"paths"`  // kinds of path that were used, separated by spaces; "" for unknown
	Suites     string      `json:"suites"` // words of Suites, separated by spaces; "" for unknown
	Doubts     string      `json:"doubts"` // reasons to doubt it (ops.DoubtUnknown…), separated by spaces; "" for none
}

// IsSeveral says that the row stands for several peers, of which only the number is known.
func (i Introduction) IsSeveral() bool { return i.Peer == cert.NodeID{} }

// Suites are the cipher suites for packets. The table stores them in the column paths,
// together with the kinds of path.
var Suites = []string{"aes", "wireguard"}

// used returns the value of the column paths.
func (i Introduction) used() string { return strings.TrimSpace(i.Paths + " " + i.Suites) }

// setUsed is the inverse of used.
func (i *Introduction) setUsed(text string) {
	var paths, suites []string
	for _, word := range strings.Fields(text) {
		if slices.Contains(Suites, word) {
			suites = append(suites, word)
		} else {
			paths = append(paths, word)
		}
	}
	i.Paths, i.Suites = strings.Join(paths, " "), strings.Join(suites, " ")
}

// hourOf and dayOf count from 1970.
func hourOf(t time.Time) int64 { return t.Unix() / 3600 }
func dayOf(t time.Time) int64  { return t.Unix() / 86400 }

// AddIntroductions stores what a device reports at now, and returns how many of the rows were
// stored unchanged. A row with the same hour, peer, direction and First replaces the stored
// one if its count is not less: a repeated report changes nothing. A device can add at most
// daily rows in one day; the rest is counted in one further row, with full in its Doubts.
func (tx *Tx) AddIntroductions(id cert.NetworkID, device cert.NodeID, rows []Introduction, daily int, full string, now time.Time) (stored int, err error) {
	var today int
	if err := tx.row(`SELECT COUNT(*) FROM introductions WHERE network_id=$1 AND node_id=$2 AND day=$3`, []any{id[:], device[:], dayOf(now)}, &today); err != nil {
		return 0, fmt.Errorf("count introductions: %w", err)
	}
	var beyond int64
	for _, r := range rows {
		if today >= daily {
			n, err := tx.execN(`UPDATE introductions SET last_at=$7, count=$8, paths=$9, doubts=$10
				WHERE network_id=$1 AND hour=$2 AND node_id=$3 AND peer_id=$4 AND inbound=$5 AND first_at=$6 AND count <= $8`,
				id[:], hourOf(r.First), device[:], r.Peer[:], r.Inbound, r.First.Unix(), r.Last.Unix(), r.Count, r.used(), r.Doubts)
			if err != nil {
				return 0, fmt.Errorf("store introductions: %w", err)
			}
			if n == 0 {
				beyond += r.Count
			} else {
				stored++
			}
			continue
		}
		if err := tx.putIntroduction(id, r, dayOf(now)); err != nil {
			return 0, err
		}
		today++ // at least: another one with the same words is counted anew the next time
		stored++
	}
	if beyond == 0 {
		return stored, nil
	}
	var had int64
	rest := Introduction{Device: device, DeviceName: rows[0].DeviceName, Inbound: true, First: fromUnix(max(1, dayOf(now)*86400)), Last: now, Doubts: full}
	err = tx.row(`SELECT count FROM introductions WHERE network_id=$1 AND hour=$2 AND node_id=$3 AND peer_id=$4 AND inbound=1 AND first_at=$5`,
		[]any{id[:], hourOf(rest.First), device[:], rest.Peer[:], rest.First.Unix()}, &had)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return 0, fmt.Errorf("store introductions: %w", err)
	}
	if rest.Count = had + beyond; rest.Count < had {
		rest.Count = had
	}
	return stored, tx.putIntroduction(id, rest, dayOf(now))
}

func (tx *Tx) putIntroduction(id cert.NetworkID, r Introduction, day int64) error {
	err := tx.exec(`INSERT INTO introductions (network_id, hour, node_id, peer_id, inbound, first_at, last_at, count, node_name, peer_name, peer_user, paths, doubts, day)
		VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14)
		ON CONFLICT (network_id, hour, node_id, peer_id, inbound, first_at) DO UPDATE
		SET last_at=excluded.last_at, count=excluded.count, paths=excluded.paths, doubts=excluded.doubts WHERE excluded.count >= introductions.count`,
		id[:], hourOf(r.First), r.Device[:], r.Peer[:], r.Inbound, r.First.Unix(), r.Last.Unix(), r.Count, r.DeviceName, r.Name, r.User, r.used(), r.Doubts, day)
	if err != nil {
		return fmt.Errorf("store introductions: %w", err)
	}
	return nil
}

// IntroductionFilter selects introductions. The zero filter selects all. The latest hour
// comes first.
type IntroductionFilter struct {
	Device *cert.NodeID // the reporting device; nil for any
	Since  time.Time    // hours that end after; zero for any
	After  *Introduction
	Limit  int // 0 for no limit
}

// EachIntroduction calls f with the introductions that the filter selects.
func (r *Reader) EachIntroduction(id cert.NetworkID, w IntroductionFilter, f func(Introduction) error) error {
	const forever = int64(1) << 62
	limit, since := forever, int64(0)
	if w.Limit > 0 {
		limit = int64(w.Limit)
	}
	if !w.Since.IsZero() {
		since = hourOf(w.Since)
	}
	last := Introduction{}
	args := []any{id[:], since, limit, forever, last.Device[:], last.Peer[:], false, int64(0)}
	if a := w.After; a != nil {
		args[3], args[4], args[5], args[6], args[7] = hourOf(a.First), a.Device[:], a.Peer[:], a.Inbound, a.First.Unix()
	}
	query := `SELECT node_id, peer_id, inbound, first_at, last_at, count, node_name, peer_name, peer_user, paths, doubts FROM introductions
		WHERE network_id=$1 AND hour >= $2 AND hour <= $4 AND (hour < $4 OR (node_id, peer_id, inbound, first_at) > ($5, $6, $7, $8))`
	if w.Device != nil {
		query += ` AND node_id=$9`
		args = append(args, w.Device[:])
	}
	err := r.each(query+` ORDER BY hour DESC, node_id, peer_id, inbound, first_at LIMIT $3`, args, func(scan func(...any) error) error {
		var i Introduction
		var device, peer []byte
		var used string
		err := scan(&device, &peer, &i.Inbound, stored{&i.First}, stored{&i.Last}, &i.Count, &i.DeviceName, &i.Name, &i.User, &used, &i.Doubts)
		i.setUsed(used)
		copy(i.Device[:], device)
		copy(i.Peer[:], peer)
		if err != nil {
			return err
		}
		return f(i)
	})
	if err != nil {
		return fmt.Errorf("read introductions: %w", err)
	}
	return nil
}

// IntroductionsBound returns the time before which introductions have to be removed to leave
// about the most recent most of them; the zero time if there are no more than that.
func (r *Reader) IntroductionsBound(id cert.NetworkID, most int) (time.Time, error) {
	var hour int64
	err := r.row(`SELECT hour FROM introductions WHERE network_id=$1 ORDER BY hour DESC LIMIT 1 OFFSET $2`, []any{id[:], most}, &hour)
	if errors.Is(err, ErrNotFound) {
		return time.Time{}, nil
	}
	return fromUnix((hour + 1) * 3600), err
}

// TrimIntroductions removes introductions of hours that ended before a time, about limit at
// once, but always whole hours. It returns the number of removed rows.
func (tx *Tx) TrimIntroductions(id cert.NetworkID, before time.Time, limit int) (gone int64, err error) {
	until := hourOf(before) // the first hour that stays
	var bound int64
	err = tx.row(`SELECT hour FROM introductions WHERE network_id=$1 AND hour < $2 ORDER BY hour LIMIT 1 OFFSET $3`, []any{id[:], until, limit}, &bound)
	if err == nil {
		until = bound + 1
	} else if !errors.Is(err, ErrNotFound) {
		return 0, fmt.Errorf("remove introductions: %w", err)
	}
	gone, err = tx.execN(`DELETE FROM introductions WHERE network_id=$1 AND hour < $2`, id[:], until)
	if err != nil {
		return 0, fmt.Errorf("remove introductions: %w", err)
	}
	return gone, nil
}

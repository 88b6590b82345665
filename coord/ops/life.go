package ops

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/cert"
)

// A revoked certificate stays in the revocation list until it expires, and nodes refuse a list
// that is longer than cert.MaxCRL: they would keep their old list, and accept devices that were
// deleted since. So the number of certificates that are both revoked and unexpired must be
// bounded. A device has one certificate in force, and few that were replaced. Certificates that
// are likely to be revoked are valid for a short time, so that they soon leave the list: those
// of ephemeral devices, those of devices that join with a key of which hundreds of devices were
// deleted, the first certificate of each device as the list fills, and all certificates once the
// list is half full. A key that fills the list is refused before it harms others, and joins are
// refused before deletions are.
const (
	ephemeralLife = 3 * 24 * time.Hour
	briefLife     = 24 * time.Hour

	// renewable is the share of a certificate's life, in percent, after which the server issues
	// another one. Nodes ask at renewAfter (66) by weft time; a node whose clock is a little
	// ahead of the server's must not ask in vain.
	renewable = 65

	maxRenames  = 20 // of a device in renameSpan
	renameSpan  = 24 * time.Hour
	maxMoves    = 20 // of a device in moveSpan
	moveSpan    = 24 * time.Hour
	fewHeld     = 4      // unexpired certificates that a device may have before new ones are valid for a shorter time
	maxHourUses = 10_000 // joins with one key in an hour

	// Numbers of revoked and unexpired certificates of devices that joined with the same key.
	manyGone = 100   // from here on devices that join with the key get ephemeralLife
	moreGone = 2_500 // from here on they get briefLife
	mostGone = 5_000 // from here on none can join, nor log out by itself while the list is half full

	// Lengths of the revocation list in bytes. From fewListed to halfList the life of first
	// certificates decreases, from halfList to almostAll that of renewed ones. Above almostAll
	// no device can join: the rest of the list is kept for deletions.
	fewListed = cert.MaxCRL / 8
	halfList  = cert.MaxCRL / 2
	almostAll = cert.MaxCRL / 8 * 7
)

// situation is the input that decides the life of a new certificate.
type situation struct {
	ephemeral bool
	joins     bool // this is the device's first certificate
	held      int  // unexpired certificates of the device
	gone      int  // only if joins: revoked and unexpired certificates of devices that joined with the same key
	list      int  // length of the revocation list in bytes
}

// lifeOf returns how long a new certificate is valid. base is the usual life.
func lifeOf(base time.Duration, n situation) time.Duration {
	short, brief := min(base, ephemeralLife), min(base, briefLife)
	life := max(short, base/time.Duration(max(1, n.held-fewHeld+1)))
	if n.ephemeral || n.gone >= manyGone {
		life = short
	}
	if n.gone >= moreGone {
		life = brief
	}
	if n.joins {
		return min(life, fading(base, brief, n.list, fewListed, halfList))
	}
	return min(life, fading(base, short, n.list, halfList, almostAll))
}

// fading returns long if list is at most from, short if it is at least to, and in between a
// life that decreases exponentially with the length of the list.
func fading(long, short time.Duration, list, from, to int) time.Duration {
	rest := float64(to-min(max(list, from), to)) / float64(to-from)
	return time.Duration(float64(short) * math.Pow(float64(long)/float64(short), rest))
}

// attributes returns what a certificate for the node has to say.
func (s *Service) attributes(node store.Node) cert.Attributes {
	return cert.Attributes{
		Name: node.Name, FQDN: node.Name + "." + s.suffix,
		IPv4: node.IPv4, IPv6: store.IPv6Of(s.ipv6, node.IPv4),
		User: node.User, Tags: node.Tags,
	}
}

// inForce reports whether the node's newest certificate says the same as a new one would, and is
// not due for renewal.
func (s *Service) inForce(node store.Node, now time.Time) bool {
	have, err := cert.ParseNode(s.network, node.Certificate)
	if err != nil || !bytes.Equal(have.Leaf.AuthorityKeyId, s.auth.Network.Cert.SubjectKeyId) {
		return false
	}
	want := s.attributes(node)
	if have.Name != want.Name || have.FQDN != want.FQDN || have.IPv4 != want.IPv4 || have.IPv6 != want.IPv6 || have.User != want.User ||
		!slices.Equal(have.Groups, want.Groups) || !slices.Equal(have.Tags, want.Tags) {
		return false
	}
	age, life := now.Sub(have.NotBefore), have.NotAfter.Sub(have.NotBefore)
	return age >= 0 && age < life*renewable/100
}

// mayJoin returns nil if one more device may join with a key, which was used inHour times in
// this hour, this time included. gone is situation.gone.
func (s *Service) mayJoin(r *store.Reader, key store.Key, inHour int, now time.Time) (gone int, err error) {
	gone, until, err := r.RevokedByKey(s.network, key.ID, now)
	switch {
	case err != nil:
		return gone, err
	case len(s.index.info().CRL) >= almostAll:
		return gone, fail(http.StatusServiceUnavailable, api.CodeUnavailable, "no device can join for now, because too many devices were deleted from this network lately: every device has to remember them until their certificates end",
			"tell the network's owner: `weft-server doctor` says more; then try again")
	case gone >= mostGone:
		return gone, fail(http.StatusTooManyRequests, api.CodeTooMany, fmt.Sprintf("%d devices that joined with this token were deleted lately, and every device has to remember them until their certificates end", gone),
			fmt.Sprintf("join with another token, or from %s on with this one; for many devices that come and go use several tokens, made with `weft-server keys create --reusable --ephemeral`", timeText(until)))
	case inHour > maxHourUses:
		return gone, fail(http.StatusTooManyRequests, api.CodeTooMany, fmt.Sprintf("%d devices have joined with this token within this hour, which is the maximum", maxHourUses),
			"join with another token, or in the next hour with this one")
	}
	return gone, nil
}

// mayLeave returns an error for a device that wants to be deleted if the revocation list is half
// full, and devices that joined with the same key fill their share of it. The owner can
// nevertheless delete the device at any time, and the device itself can leave when some of the
// other certificates have expired.
func (s *Service) mayLeave(r *store.Reader, node store.Node, now time.Time) error {
	if len(s.index.info().CRL) < halfList {
		return nil
	}
	gone, until, err := r.RevokedByKey(s.network, node.KeyID, now)
	if err != nil || gone < mostGone {
		return err
	}
	held, err := r.Unexpired(s.network, node.ID, now)
	if err != nil || held == 0 {
		return err // deleting it adds nothing to the list
	}
	return tooOften("%s cannot leave by itself before %s: too many devices that joined with the same token have left lately", node.Name, timeText(until))
}

// spanText returns a duration for people, in days if it is a whole number of days.
func spanText(d time.Duration) string {
	switch days := d / (24 * time.Hour); {
	case d == 24*time.Hour:
		return "1 day"
	case d > 0 && d%(24*time.Hour) == 0:
		return fmt.Sprintf("%d days", days)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// mayMove refuses more than maxMoves changes of tags or owner within moveSpan, because each puts
// a certificate into the revocation list. Renames are counted separately, so that an actor who
// may only rename a device cannot prevent others from removing its tags.
func (s *Service) mayMove(r *store.Reader, node store.Node, now time.Time) error {
	n, first, err := r.Moves(s.network, node.ID, now.Add(-moveSpan))
	if err == nil && n >= maxMoves {
		err = tooOften("%s got other tags or another owner %d times within a day, which is the maximum; delete it, or try again after %s", node.Name, n, timeText(first.Add(moveSpan)))
	}
	return err
}

// mayRename refuses more than maxRenames renames within renameSpan, because each issues a
// certificate.
func (s *Service) mayRename(r *store.Reader, node store.Node, now time.Time) error {
	n, first, err := r.Renames(s.network, node.ID, now.Add(-renameSpan))
	if err == nil && n >= maxRenames {
		err = tooOften("%s was renamed %d times within a day, which is the maximum; try again after %s", node.Name, n, timeText(first.Add(renameSpan)))
	}
	return err
}

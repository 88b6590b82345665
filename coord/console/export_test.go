package console

import "time"

// Routes lists every route's pattern, and whether it needs a session.
func Routes() map[string]bool {
	m := make(map[string]bool, len(routes))
	for _, rt := range routes {
		m[rt.pattern] = rt.access != public
	}
	return m
}

var (
	Clean           = clean
	LocalPath       = localPath
	RevocationsText = revocationsText
)

// Inline returns what pages may have in them: the style sheet, and a script.
func Inline() (style, script string) {
	return string(assets()["style.css"].body), string(early())
}

// MaxWaiting is how many strangers may wait for their password to be checked.
const MaxWaiting = maxWaiting

// HoldHashing takes all slots of argon2id, until release.
func HoldHashing(c *Console) (release func()) {
	for range cap(c.hashing) {
		c.hashing <- struct{}{}
	}
	return func() {
		for range cap(c.hashing) {
			<-c.hashing
		}
	}
}

// ListTick is how long a page with a list waits between events.
func ListTick(lists int) (least, most time.Duration) { return listTick(lists) }

package console

import (
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"time"

	"github.com/boombuler/barcode/qr"

	"weft/coord/ops"
)

// A token is shown to the session that made it, for a while and until it is
// used up, so that reloading the page or going back does not lose it. It is
// never written anywhere.
const (
	tokenShown = 30 * time.Minute
	maxShown   = 256
)

type shownToken struct {
	session [32]byte
	token   string // "" once the key cannot be used any more
	until   time.Time
	seen    fetched
}

func (c *Console) holdToken(keyID string, session [32]byte, token string) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	oldest := ""
	for id, t := range c.shown {
		if !t.until.After(now) {
			delete(c.shown, id)
		} else if oldest == "" || t.until.Before(c.shown[oldest].until) {
			oldest = id
		}
	}
	if len(c.shown) >= maxShown {
		delete(c.shown, oldest)
	}
	c.shown[keyID] = shownToken{session: session, token: token, until: now.Add(tokenShown)}
}

func (c *Console) heldToken(keyID string, session [32]byte) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.shown[keyID]
	if !ok || t.session != session {
		return ""
	}
	if !t.until.After(c.now()) {
		delete(c.shown, keyID)
		return ""
	}
	return t.token
}

// dropToken forgets a token that cannot be used any more. What was seen of who used it stays.
func (c *Console) dropToken(keyID string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.shown[keyID]; ok {
		t.token = ""
		c.shown[keyID] = t
	}
}

type joinView struct {
	Key     keyView
	For     addChoice
	Choices []choiceView // with the same key; others lead to a new one
	Token   string       // "" when it is not shown any more
	QR      template.HTML
	How     recipe
	Steps   []stepView
	Trouble *troubleView
	Joined  []deviceView // newest first
	More    string       // how many joined beyond those listed
	Count   int          // how many joined
	Test    *testView    // of the newest
	Live    bool         // more may happen
	Self    string
}

// tokenPattern is the only kind of token that goes into commands.
var tokenPattern = regexp.MustCompile(`^weft1[0-9A-Za-z_-]+$`)

// join shows how to join with a key, waits until something did, and tests the
// connection. The live part of the page fetches the page again.
func (c *Console) join(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	k, err := c.ops.Key(v.ctx(), v.actor, id)
	if err != nil {
		return err
	}
	list, err := c.ops.Devices(v.ctx(), v.actor, ops.DeviceQuery{KeyID: id, Limit: 200})
	if err != nil {
		return err
	}
	view := joinView{Key: c.keyView(k), Self: "/network/keys/" + id + "/join", Count: list.Total}
	if view.Key.Kind != "relay" {
		view.For = chosen(v.r.URL.Query().Get("for"), view.Key.Kind)
		for _, ch := range addChoices {
			href := addPath(ch.ID)
			if ch.Key == view.Key.Kind && (ch.ID != "image" || view.Key.Reusable) {
				href = view.Self + "?for=" + ch.ID
			}
			view.Choices = append(view.Choices, choiceView{ch, href, ch.ID == view.For.ID})
		}
		view.Self += "?for=" + view.For.ID
	}
	if view.Key.Open {
		if t := c.heldToken(id, v.session.Hash); len(t) <= 2000 && tokenPattern.MatchString(t) {
			view.Token = t
			view.How = recipeOf(view.For, c.offer(), id, t, view.Key.Reusable)
			if view.QR, err = qrSVG(t, "QR code of the token"); err != nil {
				c.log.Warn("draw QR code", "err", err)
			}
		}
	} else {
		c.dropToken(id)
	}
	newest := -1
	for i, d := range list.Devices {
		if newest < 0 || d.Created.After(list.Devices[newest].Created) {
			newest = i
		}
	}
	seen, watched := c.seen(id)
	var first *deviceView
	var joined time.Time
	if newest >= 0 {
		d := list.Devices[newest]
		joined = d.Created
		view.Joined = append(view.Joined, c.deviceView(d))
		for i, o := range list.Devices {
			if i != newest && len(view.Joined) < 5 {
				view.Joined = append(view.Joined, c.deviceView(o))
			}
		}
		if n := list.Total - len(view.Joined); n > 0 {
			view.More = plural(n, "other")
		}
		if first = &view.Joined[0]; d.Online {
			view.Test = &testView{Device: view.Joined[0], Auto: true}
		}
	}
	if view.Key.Kind != "relay" {
		host := ""
		if urls := c.ops.Network().URLs; len(urls) > 0 {
			host = clean(urls[0])
		}
		view.Steps, view.Trouble = joinSteps(c.now(), view.For, view.Key, seen, k.Created, first, joined, host)
	}
	view.Live = view.Key.Open || len(list.Devices) > 0 && (view.Test == nil || watched && seen.reached.IsZero())
	return c.render(v, http.StatusOK, "join", view)
}

// qrSVG draws text as a QR code: one path, dark on white whatever the theme,
// since many readers want it so. The result is made of numbers and of label, which is
// our own.
func qrSVG(text, label string) (template.HTML, error) {
	code, err := qr.Encode(text, qr.L, qr.Auto)
	if err != nil {
		return "", err
	}
	b := code.Bounds()
	const quiet = 4
	var path []byte
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; {
			if r, _, _, _ := code.At(x, y).RGBA(); r != 0 {
				x++
				continue
			}
			start := x
			for x < b.Max.X {
				if r, _, _, _ := code.At(x, y).RGBA(); r != 0 {
					break
				}
				x++
			}
			path = fmt.Appendf(path, "M%d %dh%dv1h-%dz", start+quiet, y+quiet, x-start, x-start)
		}
	}
	size := b.Dx() + 2*quiet
	svg := fmt.Appendf(nil, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s" shape-rendering="crispEdges"><rect width="%d" height="%d" fill="#fff"/><path fill="#101314" d="%s"/></svg>`, size, size, label, size, size, path)
	return template.HTML(svg), nil
}

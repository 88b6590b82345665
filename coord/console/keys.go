package console

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"weft/coord/ops"
	"weft/coord/store"
)

type keyView struct {
	ID        string
	Note      string
	Kind      string // what joins with it: "device", "laptop", "relay"
	Reusable  bool
	Ephemeral bool
	Tags      []string
	Created   stamp
	Expires   stamp
	LastUsed  stamp
	Used      int
	State     string // as store.Key.State says it
	Open      bool   // it can be used
}

func (c *Console) keyView(k store.Key) keyView {
	view := keyView{
		ID: clean(k.ID), Note: clean(k.Note), Kind: "device",
		Reusable: k.Reusable, Ephemeral: k.Ephemeral, Tags: cleanAll(k.Tags),
		Created: c.stamp(k.Created), Expires: c.stamp(k.Expires), LastUsed: c.stamp(orZero(k.Used)),
		Used: k.Uses, State: k.State(c.now()),
	}
	switch {
	case k.Relay:
		view.Kind = "relay"
	case len(k.Tags) == 0:
		view.Kind = "laptop"
	}
	view.Open = view.State == store.KeyGood
	return view
}

type keysView struct {
	Change     bool
	Open, Past []keyView
	Shown      int // how many, when there may be more; else 0
}

// maxKeys is how many keys the page shows.
const maxKeys = 200

func (c *Console) keys(v *visit) error {
	list, err := c.ops.Keys(v.ctx(), v.actor, maxKeys)
	if err != nil {
		return err
	}
	view := keysView{Change: v.actor.MaySome("key.create")}
	if len(list) == maxKeys {
		view.Shown = maxKeys
	}
	for _, k := range list {
		if kv := c.keyView(k); kv.Open {
			view.Open = append(view.Open, kv)
		} else {
			view.Past = append(view.Past, kv)
		}
	}
	return c.render(v, http.StatusOK, "keys", view)
}

// newKeyView is the form for a key: on its own page with everything, and on
// the "Add" pages with what matters there.
type newKeyView struct {
	For      addChoice // on the page Add
	Choices  []choiceView
	Kind     string // "device" or "laptop"
	Full     bool   // the page of its own
	Note     string
	Tags     string
	Life     string
	Reusable bool
	Epheme   bool
	Problem  string
	Lives    []lifeChoice
	Server   string // address for devices
	Missing  string // why there is no line for the choice
	Reads    bool   // the visitor adds nothing
}

type lifeChoice struct {
	Value, Text string
	Here        bool
}

// lives are the times a key may be good for.
var lives = []struct {
	value, text string
	life        time.Duration
}{
	{"1h", "1 hour", time.Hour},
	{"24h", "1 day", 24 * time.Hour},
	{"7d", "1 week", 7 * 24 * time.Hour},
	{"90d", "90 days", 90 * 24 * time.Hour},
	{"1y", "1 year", 365 * 24 * time.Hour},
}

func (c *Console) newKey(v *visit) error {
	return c.keyForm(v, http.StatusOK, newKeyView{Kind: "device", Full: true})
}

func (c *Console) keyForm(v *visit, status int, view newKeyView) error {
	if view.Tags == "" && view.Problem == "" {
		view.Tags = "device"
	}
	image := view.For.ID == "image"
	if view.Problem == "" && image {
		view.Reusable = true
	}
	if view.Life == "" {
		view.Life = "24h"
		if image {
			view.Life = "90d"
		}
	}
	view.Reads = v.actor.Role == ops.RoleAuditor
	if !view.Full {
		view.Kind = view.For.Key
		for _, ch := range addChoices {
			view.Choices = append(view.Choices, choiceView{ch, addPath(ch.ID), ch.ID == view.For.ID})
		}
		view.Missing = recipeOf(view.For, c.offer(), "", "", view.Reusable).Missing
	}
	for _, l := range lives {
		view.Lives = append(view.Lives, lifeChoice{l.value, l.text, l.value == view.Life})
	}
	if urls := c.ops.Network().URLs; len(urls) > 0 {
		view.Server = clean(urls[0])
	}
	name := "add"
	if view.Full {
		name = "newkey"
	}
	return c.render(v, status, name, view)
}

// tagPattern is a tag as people write it, without "tag:".
var tagPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// createKey makes a key and leads to the page that shows its token.
func (c *Console) createKey(v *visit) error {
	f := v.r.PostForm
	view := newKeyView{
		Kind: "device", Full: f.Get("full") == "1",
		Note: clean(strings.TrimSpace(cut(f.Get("note"), 100))), Tags: strings.TrimSpace(cut(f.Get("tags"), 200)), Life: f.Get("life"),
		Reusable: f.Get("reusable") == "1", Epheme: f.Get("ephemeral") == "1",
	}
	if f.Get("kind") == "laptop" {
		view.Kind = "laptop"
	}
	view.For = chosen(f.Get("for"), view.Kind)
	if f.Get("for") != "" {
		view.For = chosen(f.Get("for"), "")
		view.Kind = view.For.Key
	}
	bad := func(problem string) error {
		view.Problem = problem
		view.Tags = clean(view.Tags)
		return c.keyForm(v, http.StatusUnprocessableEntity, view)
	}
	nk := ops.CreateKey{Note: view.Note, Reusable: view.Reusable, Ephemeral: view.Epheme}
	for _, l := range lives {
		if l.value == view.Life || view.Life == "" && l.value == "24h" {
			nk.Life = l.life
		}
	}
	if view.For.ID == "image" && !view.Reusable {
		return bad("A golden image needs a reusable token: each of its copies joins with it.")
	}
	if nk.Life == 0 {
		return bad("Choose how long the token is good for.")
	}
	if view.Kind == "device" {
		for _, t := range strings.FieldsFunc(strings.ToLower(view.Tags), func(r rune) bool { return r == ' ' || r == ',' }) {
			t = strings.TrimPrefix(t, "tag:")
			if !tagPattern.MatchString(t) {
				return bad("A tag has up to 32 letters, digits and hyphens.")
			}
			if !slices.Contains(nk.Tags, t) {
				nk.Tags = append(nk.Tags, t)
			}
		}
		if len(nk.Tags) == 0 || len(nk.Tags) > 8 {
			return bad("A device has between one and eight tags.")
		}
	}
	k, err := ops.Do(v.ctx(), c.ops, v.actor, nk)
	if errors.Is(err, ops.ErrForbidden) && v.actor.Role == ops.RoleAuditor {
		return errForbidden
	}
	if errors.Is(err, ops.ErrForbidden) && len(nk.Tags) > 0 {
		return bad(forbiddenText(err))
	}
	if errors.Is(err, ops.ErrInvalid) {
		return bad("The server does not accept this combination.")
	}
	if err != nil {
		return err
	}
	c.holdToken(k.ID, v.session.Hash, k.Token)
	if f.Get("for") != "" {
		return v.redirect("/network/keys/" + k.ID + "/join?for=" + view.For.ID)
	}
	return v.redirect("/network/keys/" + k.ID + "/join")
}

func (c *Console) revokeKey(v *visit) error {
	id, err := v.pathID()
	if err != nil {
		return err
	}
	if _, err := ops.Do(v.ctx(), c.ops, v.actor, ops.RevokeKey{ID: id}); err != nil {
		return err
	}
	c.dropToken(id)
	return v.redirect("/network/keys?done=revoked")
}

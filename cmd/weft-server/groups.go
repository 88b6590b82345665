package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

func groupsCmd() *cobra.Command {
	cmd := group("groups", "List, create and delete groups of people, and their members", groupsListCmd(), groupsCreateCmd(), groupsMembersCmd(true), groupsMembersCmd(false), groupsDeleteCmd())
	cmd.Long = `Lists, creates and deletes groups of people and their members. In the policy a group
is group:NAME. A change takes effect on devices within seconds.

  weft-server groups create family
  weft-server groups add family alice bob
  weft-server groups remove family bob
  weft-server users edit bob --add-group family --remove-group staff

The last command changes all of these groups or none. Groups that an OpenID provider
reports are listed too; the provider reports their members at each sign-in. A group
that was made here has only the members that were added here, even if a provider has
a group with the same name.`
	return cmd
}

func groupsListCmd() *cobra.Command {
	return apiVerb{
		use: "list", short: "List the groups with their members",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.Groups(ctx)
			rows := [][]string{{"NAME", "MADE BY", "MEMBERS"}}
			for _, g := range list {
				by := "admins"
				if g.Created == nil {
					by = strings.Join(g.Sources, ",")
				}
				rows = append(rows, []string{g.Name, by, strings.Join(g.Members, ",")})
			}
			return answer{schema: "groups/1", object: map[string]any{"groups": list}, out: table(rows)}, err
		},
	}.command()
}

func groupsCreateCmd() *cobra.Command {
	return apiVerb{
		use: "create NAME", short: "Create a group without members", args: cobra.ExactArgs(1), words: cobra.NoFileCompletions,
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			g, err := c.CreateGroup(ctx, a[0])
			return groupChanged(g, "created the group %s; put people into it with: weft-server groups add %[1]s NAME", g.Name), err
		},
	}.command()
}

// groupChanged is the answer of a verb that changed a group.
func groupChanged(g webapi.Group, said string, args ...any) answer {
	return answer{schema: "group/1", object: g, said: "weft-server: " + fmt.Sprintf(said, args...)}
}

func groupsMembersCmd(in bool) *cobra.Command {
	use, short := "remove GROUP NAME...", "Take people out of a group"
	if in {
		use, short = "add GROUP NAME...", "Put people into a group"
	}
	return apiVerb{
		use: use, short: short, args: cobra.MinimumNArgs(2), words: complete(ownGroups),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			e := ops.EditGroup{Name: a[0], Remove: a[1:]}
			if in {
				e = ops.EditGroup{Name: a[0], Add: a[1:]}
			}
			g, err := c.EditGroup(ctx, e)
			if len(g.Members) == 0 {
				return groupChanged(g, "nobody is in the group %s", g.Name), err
			}
			return groupChanged(g, "in the group %s are now: %s", g.Name, strings.Join(g.Members, ", ")), err
		},
	}.command()
}

func groupsDeleteCmd() *cobra.Command {
	return apiVerb{
		use: "delete NAME", short: "Delete a group; in rules its name then selects nobody", args: cobra.ExactArgs(1), words: complete(ownGroups),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			g, err := c.DeleteGroup(ctx, a[0])
			return groupChanged(g, "deleted the group %s", g.Name), err
		},
	}.command()
}

// ownGroups returns the names of the groups that admins have made, for completion.
func ownGroups(ctx context.Context, c *client.Client) (words []string, err error) {
	list, err := c.Groups(ctx)
	for _, g := range slices.DeleteFunc(list, func(g webapi.Group) bool { return g.Created == nil }) {
		words = append(words, g.Name)
	}
	return words, err
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
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
	var asJSON *bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the groups with their members", Args: args(cobra.NoArgs), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				list, err := c.Groups(ctx)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "groups/1", map[string]any{"groups": list})
				}
				rows := [][]string{{"NAME", "MADE BY", "MEMBERS"}}
				for _, g := range list {
					by := "admins"
					if g.Created == nil {
						by = strings.Join(g.Sources, ",")
					}
					rows = append(rows, []string{g.Name, by, strings.Join(g.Members, ",")})
				}
				return table(cmd.OutOrStdout(), rows)
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

func groupsCreateCmd() *cobra.Command {
	return groupVerb("create NAME", "Create a group without members", 1, cobra.NoFileCompletions,
		func(ctx context.Context, c *client.Client, a []string) (webapi.Group, string, error) {
			g, err := c.CreateGroup(ctx, a[0])
			return g, fmt.Sprintf("created the group %s; put people into it with: weft-server groups add %[1]s NAME", g.Name), err
		})
}

func groupsMembersCmd(in bool) *cobra.Command {
	use, short := "remove GROUP NAME...", "Take people out of a group"
	if in {
		use, short = "add GROUP NAME...", "Put people into a group"
	}
	return groupVerb(use, short, 2, complete(ownGroups),
		func(ctx context.Context, c *client.Client, a []string) (webapi.Group, string, error) {
			e := ops.EditGroup{Name: a[0], Remove: a[1:]}
			if in {
				e = ops.EditGroup{Name: a[0], Add: a[1:]}
			}
			g, err := c.EditGroup(ctx, e)
			said := "nobody is in the group " + g.Name
			if len(g.Members) > 0 {
				said = fmt.Sprintf("in the group %s are now: %s", g.Name, strings.Join(g.Members, ", "))
			}
			return g, said, err
		})
}

func groupsDeleteCmd() *cobra.Command {
	return groupVerb("delete NAME", "Delete a group; in rules its name then selects nobody", 1, complete(ownGroups),
		func(ctx context.Context, c *client.Client, a []string) (webapi.Group, string, error) {
			g, err := c.DeleteGroup(ctx, a[0])
			return g, "deleted the group " + g.Name, err
		})
}

// ownGroups returns the names of the groups that admins have made, for completion.
func ownGroups(ctx context.Context, c *client.Client) (words []string, err error) {
	list, err := c.Groups(ctx)
	for _, g := range slices.DeleteFunc(list, func(g webapi.Group) bool { return g.Created == nil }) {
		words = append(words, g.Name)
	}
	return words, err
}

// groupVerb makes a verb about one group that takes one argument if least is 1, and otherwise at
// least as many as least. do returns the group, and words for what was done.
func groupVerb(use, short string, least int, words cobra.CompletionFunc, do func(context.Context, *client.Client, []string) (webapi.Group, string, error)) *cobra.Command {
	var asJSON *bool
	many := cobra.ExactArgs(1)
	if least > 1 {
		many = cobra.MinimumNArgs(least)
	}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args(many), ValidArgsFunction: words,
		RunE: func(cmd *cobra.Command, a []string) error {
			return withServer(cmd, func(ctx context.Context, c *client.Client) error {
				g, done, err := do(ctx, c, a)
				if err != nil {
					return err
				}
				if *asJSON {
					return cli.PrintObject(cmd.OutOrStdout(), "group/1", g)
				}
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), "weft-server: "+done)
				return err
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	return cmd
}

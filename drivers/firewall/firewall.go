// Package firewall keeps guests apart from the host and from each other's
// networks, with one nftables table (nft(8)) that is replaced whole.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the one table of Ashlar's.
const tableName = "ashlar"

// A Network is a bridge with guests.
type Network struct {
	Bridge string
	Subnet netip.Prefix // IPv4
}

// Apply puts the rules for networks into force, in one transaction and in
// place of those before:
//
//   - a guest may ask the host for an address (DHCP) and ping it; nothing else
//     of the host answers it;
//   - a guest may talk through uplink to the outside, under the host's
//     address; nothing from there comes in unasked;
//   - no guest talks to another network's guests, or under an address that
//     is not of its network.
//
// Without an uplink ("") guests only reach their own network.
func Apply(uplink string, networks []Network) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	// Adding first makes deleting work where there is no table yet.
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	c.AddTable(table)
	c.DelTable(table)
	c.AddTable(table)
	input(c, table, networks)
	forward(c, table, uplink, networks)
	if uplink != "" {
		masquerade(c, table, uplink, networks)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("apply firewall rules (CONFIG_NF_TABLES_INET, CONFIG_NFT_CT, CONFIG_NFT_MASQ): %w", err)
	}
	return nil
}

// Remove takes all rules away.
func Remove() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove firewall rules: %w", err)
	}
	return nil
}

func input(c *nftables.Conn, t *nftables.Table, networks []Network) {
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{Name: "input", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept})
	add := func(e ...[]expr.Any) { c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(e...)}) }
	for _, n := range networks {
		from := incoming(n.Bridge)
		add(from, udpTo(67), verdict(expr.VerdictAccept))
		add(from, source(n.Subnet), pingRequest(), verdict(expr.VerdictAccept))
		add(from, established(), verdict(expr.VerdictAccept))
		add(from, verdict(expr.VerdictDrop))
	}
}

func forward(c *nftables.Conn, t *nftables.Table, uplink string, networks []Network) {
	drop := nftables.ChainPolicyDrop
	chain := c.AddChain(&nftables.Chain{Name: "forward", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	add := func(e ...[]expr.Any) { c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(e...)}) }
	for _, n := range networks {
		// A kernel with br_netfilter shows bridged packets here too.
		add(incoming(n.Bridge), outgoing(n.Bridge), verdict(expr.VerdictAccept))
		if uplink == "" {
			continue
		}
		add(incoming(n.Bridge), outgoing(uplink), source(n.Subnet), verdict(expr.VerdictAccept))
		add(incoming(uplink), outgoing(n.Bridge), established(), verdict(expr.VerdictAccept))
	}
}

func masquerade(c *nftables.Conn, t *nftables.Table, uplink string, networks []Network) {
	chain := c.AddChain(&nftables.Chain{Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
	for _, n := range networks {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: join(
			outgoing(uplink), source(n.Subnet), []expr.Any{&expr.Masq{}})})
	}
}

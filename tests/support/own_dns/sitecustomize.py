"""Has a process ask the DNS server that `OWN_DNS` names in place of the machine's."""

import os

from webhook_gateway.outbound.resolvers import DnsResolver

DnsResolver.__init__.__defaults__ = ((os.environ["OWN_DNS"],),)

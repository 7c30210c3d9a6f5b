# A session on a machine that has not begun, up to the end of the first of its guests.

thbreak vmm_core::domain::lifecycle::vcpu_left
continue
echo == grants\n
tessera domains
tessera grants grantor
tessera grants grantee
echo == end\n
detach

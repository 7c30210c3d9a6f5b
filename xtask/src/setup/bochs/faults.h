// Faults that a test gives to the emulated machine.
//
// The environment variable TESSERA_BOCHS_FAULTS names them, with commas between. Without it
// nothing changes. Words that end in -CPU may leave that part out and then stand for every CPU.
//
//   absent-MSR-BIT              a capability of VMX that the CPU does not report and does not
//                               take: MSR (hexadecimal) is one of 480, 485 and 48c, or of the
//                               control words 481, 482, 483, 484 and 48b, whose BIT is then the
//                               control's
//   feature-control-open-CPU    firmware forgets to set IA32_FEATURE_CONTROL
//   feature-control-locked-CPU  firmware locks IA32_FEATURE_CONTROL with VMX off
//   vmxon-fails-CPU             VMXON fails (VMfailInvalid)
//   sipi-ignored-CPU            start-up interrupts do nothing once the first CPU is in long mode

#ifndef TESSERA_FAULTS_H
#define TESSERA_FAULTS_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline bool tessera_fault(const char *format, ...)
{
  static const char *faults = getenv("TESSERA_BOCHS_FAULTS");
  if (faults == NULL) return false;

  char word[64];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(word, sizeof word, format, arguments);
  va_end(arguments);

  size_t length = strlen(word);
  for (const char *at = faults; (at = strstr(at, word)) != NULL; at += length) {
    bool begins = at == faults || at[-1] == ',';
    bool ends = at[length] == '\0' || at[length] == ',';
    if (begins && ends) return true;
  }
  return false;
}

static inline bool tessera_fault_on(unsigned cpu, const char *word)
{
  return tessera_fault("%s", word) || tessera_fault("%s-%u", word, cpu);
}

// What is left of a capability word of up to 64 bits.
static inline Bit64u tessera_present(unsigned msr, Bit64u bits)
{
  for (unsigned n = 0; n < 64; n++) {
    if (tessera_fault("absent-%x-%u", msr, n)) bits &= ~(BX_CONST64(1) << n);
  }
  return bits;
}

// A VMCS field goes with the control that uses it.
static inline bool tessera_has_field(Bit32u encoding)
{
  switch (encoding) {
    case VMCS_16BIT_CONTROL_VPID:
      return ! tessera_fault("absent-48b-5");
    case VMCS_32BIT_CONTROL_PAUSE_LOOP_EXITING_GAP:
    case VMCS_32BIT_CONTROL_PAUSE_LOOP_EXITING_WINDOW:
      return ! tessera_fault("absent-48b-10");
    case VMCS_64BIT_CONTROL_XSS_EXITING_BITMAP:
    case VMCS_64BIT_CONTROL_XSS_EXITING_BITMAP_HI:
      return ! tessera_fault("absent-48b-20");
    case VMCS_32BIT_GUEST_PREEMPTION_TIMER_VALUE:
      return ! tessera_fault("absent-481-6");
    case VMCS_64BIT_HOST_IA32_PAT:
    case VMCS_64BIT_HOST_IA32_PAT_HI:
      return ! tessera_fault("absent-483-19");
    case VMCS_64BIT_GUEST_IA32_PAT:
    case VMCS_64BIT_GUEST_IA32_PAT_HI:
      return ! tessera_fault("absent-483-18") || ! tessera_fault("absent-484-14");
    default:
      return true;
  }
}

#endif

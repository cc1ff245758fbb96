from ..discovery import import_modules

import_modules(__name__, __path__, '_model')
